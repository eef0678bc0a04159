import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { IptablesTrafficManager } from '../../src/linux/iptables.ts';
import { NftablesTrafficManager } from '../../src/linux/nftables.ts';
import { type RunOptions, run } from '../../src/linux/run.ts';
import { trafficRules } from '../../src/trafficmngr/rules.ts';
import type { Removal } from '../../src/trafficmngr/traffic-manager.ts';
import { DUAL } from '../contract/traffic-manager.ts';
import { withNamespace } from './traffic-namespace.ts';

const WANTED = trafficRules(DUAL);

describe('the legacy flavour of iptables', () => {
  const before_ = process.env.PATH;
  let directory = '';
  before(() => {
    directory = mkdtempSync(join(tmpdir(), 'weft-legacy-'));
    for (const program of ['iptables', 'ip6tables']) {
      for (const suffix of ['', '-save', '-restore']) {
        symlinkSync('/usr/sbin/xtables-legacy-multi', join(directory, `${program}${suffix}`));
      }
    }
    process.env.PATH = `${directory}:${before_}`;
  });
  after(() => {
    process.env.PATH = before_;
    rmSync(directory, { recursive: true });
  });

  it('is served as the nft flavour is', async () => {
    await using namespace = await withNamespace();
    const netns = namespace.name;
    assert.match((await run(['iptables', '--version'], { netns })).stdout, /legacy/);
    const manager = new IptablesTrafficManager({ netns });
    assert.notDeepEqual(await manager.ensure(WANTED), []);
    assert.deepEqual(await new IptablesTrafficManager({ netns }).ensure(WANTED), []);
    const lines = await manager.read();
    assert.equal(lines.length, 2 * 12);

    await run(['iptables', '-w', '-t', 'nat', '-D', 'FLANNEL-POSTRTG', '3'], { netns });
    await run(['ip6tables', '-w', '-t', 'filter', '-F', 'FORWARD'], { netns });
    const repairs = await manager.ensure(WANTED);
    assert.deepEqual(
      repairs.map(({ problem, family, where }) => `${problem} ${family} ${where}`),
      ['missing 4 nat/FLANNEL-POSTRTG', 'missing 6 filter/FORWARD'],
    );
    assert.deepEqual(await manager.read(), lines);

    const untracked = { listenAddress: ipv4Of(0xc0a84d01), listenPort: 8285 };
    const more = trafficRules({ ...DUAL, untracked });
    await manager.ensure(more);
    assert.deepEqual(await manager.ensure(more), []);
    // For each direction a chain, a rule and a jump.
    assert.equal((await manager.read()).length, lines.length + 6);
    assert.match((await run(['iptables-save', '-t', 'raw'], { netns })).stdout, /--dport 8285 .*-j CT --notrack/);

    assert.equal((await manager.remove()).removed.length, lines.length + 6);
    assert.doesNotMatch((await run(['iptables-save'], { netns })).stdout, /flannel/i);
  });
});

/**
 * Runs a program where /usr/sbin has only what is named. A mount namespace of its own keeps this from everybody else.
 */
async function withOnly(programs: readonly string[], netns: string, source: string): Promise<unknown> {
  const script = `
    set -e
    mount -t tmpfs tmpfs "$2"
    for program in ${programs.join(' ')}; do cp "/usr/sbin/$program" "$2/"; done
    mount --bind "$2" /usr/sbin
    exec "$0" --input-type=module -e "$1"`;
  const copy = mkdtempSync(join(tmpdir(), 'weft-sbin-'));
  const argv = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, process.execPath, source, copy];
  const options: RunOptions = { netns, cwd: new URL('../..', import.meta.url).pathname };
  try {
    return JSON.parse((await run(argv, options)).stdout);
  } finally {
    rmSync(copy, { recursive: true });
  }
}

const PRELUDE = `
  import { IptablesTrafficManager } from './src/linux/iptables.ts';
  import { NftablesTrafficManager } from './src/linux/nftables.ts';
  import { DUAL } from './test/contract/traffic-manager.ts';
  import { trafficRules } from './src/trafficmngr/rules.ts';
  const tell = (value) => console.log(JSON.stringify(value));`;

describe('a host without iptables', () => {
  it('is served in nftables mode, and rules that an iptables once made are removed through nft', async () => {
    await using namespace = await withNamespace();
    const netns = namespace.name;
    await new IptablesTrafficManager({ netns }).ensure(WANTED);
    await run(['iptables', '-w', '-t', 'nat', '-I', 'POSTROUTING', '-s', '192.0.2.0/24', '-j', 'ACCEPT'], { netns });
    const result = (await withOnly(
      ['nft'],
      netns,
      `${PRELUDE}
       const seen = await new IptablesTrafficManager().read();
       const removal = await new IptablesTrafficManager().remove();
       const repairs = await new NftablesTrafficManager().ensure(trafficRules(DUAL));
       tell({ seen, removal, again: await new IptablesTrafficManager().remove(), repairs });`,
    )) as { seen: string[]; removal: Removal; again: Removal; repairs: unknown[] };
    assert.deepEqual(result.removal.unavailable, ['iptables', 'ip6tables']);
    assert.deepEqual(result.removal.removed, [
      'ip nat POSTROUTING jump FLANNEL-POSTRTG',
      'ip nat FLANNEL-POSTRTG',
      'ip filter FORWARD jump FLANNEL-FWD',
      'ip filter FLANNEL-FWD',
      'ip6 nat POSTROUTING jump FLANNEL-POSTRTG',
      'ip6 nat FLANNEL-POSTRTG',
      'ip6 filter FORWARD jump FLANNEL-FWD',
      'ip6 filter FLANNEL-FWD',
    ]);
    assert.deepEqual(result.seen, result.removal.removed);
    assert.deepEqual(result.again.removed, []);
    assert.notDeepEqual(result.repairs, []);
    const { stdout } = await run(['iptables-save'], { netns });
    assert.doesNotMatch(stdout, /FLANNEL/);
    assert.match(stdout, /-A POSTROUTING -s 192\.0\.2\.0\/24 -j ACCEPT/, 'rules of others are left alone');
    assert.deepEqual(await new NftablesTrafficManager({ netns }).ensure(WANTED), []);
  });

  it('is told what to install in iptables mode', async () => {
    await using namespace = await withNamespace();
    const source = `${PRELUDE}
      tell(await new IptablesTrafficManager().ensure(trafficRules(DUAL)).catch(({ code, message, hint }) => ({ code, message, hint })));`;
    assert.deepEqual(await withOnly(['nft'], namespace.name, source), {
      code: 'WEFT_COMMAND_MISSING',
      message: 'could not run iptables: there is no such program',
      hint: 'On Debian: apt-get install iptables',
    });
  });
});

describe('a host without nft', () => {
  it('is served in iptables mode, where there is nothing of nftables to clean up', async () => {
    await using namespace = await withNamespace();
    const netns = namespace.name;
    const programs = [
      'iptables',
      'iptables-save',
      'iptables-restore',
      'ip6tables',
      'ip6tables-save',
      'ip6tables-restore',
    ];
    const source = `${PRELUDE}
      const removal = await new NftablesTrafficManager().remove();
      const repairs = await new IptablesTrafficManager().ensure(trafficRules(DUAL));
      const failure = await new NftablesTrafficManager().ensure(trafficRules(DUAL)).catch(({ code }) => code);
      tell({ removal, repairs: repairs.length > 0, failure });`;
    assert.deepEqual(await withOnly(programs, netns, source), {
      removal: { removed: [], unavailable: ['nft'] },
      repairs: true,
      failure: 'WEFT_COMMAND_MISSING',
    });
    assert.deepEqual(await new IptablesTrafficManager({ netns }).ensure(WANTED), []);
  });
});

describe('an agent without rights', () => {
  it('is told that it needs them', async () => {
    await using namespace = await withNamespace();
    const source = `${PRELUDE}
      process.setgroups([]);
      process.setgid(65534);
      process.setuid(65534);
      const results = [];
      for (const manager of [new IptablesTrafficManager(), new NftablesTrafficManager()]) {
        results.push(await manager.ensure(trafficRules(DUAL)).catch(({ code, hint }) => ({ code, hint })));
      }
      tell(results);`;
    const { stdout } = await run([process.execPath, '--input-type=module', '-e', source], {
      netns: namespace.name,
      cwd: new URL('../..', import.meta.url).pathname,
    });
    const refused = {
      code: 'WEFT_TRAFFIC_RULES',
      hint: 'The agent needs root, or the capability NET_ADMIN in its container.',
    };
    assert.deepEqual(JSON.parse(stdout), [refused, refused]);
  });
});
