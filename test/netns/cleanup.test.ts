import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { IptablesTrafficManager } from '../../src/linux/iptables.ts';
import type { RunResult } from '../../src/linux/run.ts';
import { recordStartupError } from '../../src/node-files/last-error.ts';
import { lastKnownPath } from '../../src/node-files/last-known.ts';
import { trafficRules } from '../../src/trafficmngr/rules.ts';
import { DUAL } from '../contract/traffic-manager.ts';
import { hostText } from './host-text.ts';
import { Overlay } from './overlay.ts';
import { eventually } from './waiting.ts';

const WEFT = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url)),
];
/** As docs/MIGRATION.md starts it, in an init container. */
const CONFINED = [
  ...['setpriv', '--bounding-set=-all,+net_admin,+net_raw,+dac_override', '--inh-caps=-all', '--no-new-privs', '--'],
];
const NOTHING = 'there is nothing to remove on this host\n';
const signal = new AbortController().signal;

for (const { mode, enableNfTables } of [
  { mode: 'iptables', enableNfTables: false },
  { mode: 'nftables', enableNfTables: true },
]) {
  describe(`weft cleanup on a host with an agent in ${mode} mode`, () => {
    let overlay: Overlay;
    let topology: Topology;
    let host: LabHost;
    let cniConfDir: string;

    before(async () => {
      cniConfDir = await mkdtemp(join(tmpdir(), 'weft-cleanup-'));
      await writeFile(join(cniConfDir, '99-other.conflist'), '{}');
      overlay = await Overlay.create(
        {
          hosts: 1,
          containersPerHost: 1,
          netConf: JSON.stringify({
            Network: '10.244.0.0/16',
            EnableNFTables: enableNfTables,
            Backend: { Type: 'udp' },
          }),
          agentFlags: ['--ip-blackhole-route', '--notrack-tunnel', '--cni-conf-dir', cniConfDir],
        },
        signal,
      );
      ({ topology } = overlay);
      host = topology.hosts[0]!;
      const known = lastKnownPath(overlay.agents[0]!.subnetFile);
      await eventually('what the agent knows is written', () => existsSync(known) || undefined);
      // What is not weft's, beside what is.
      await topology.ipBatch(host, 'route add 198.51.100.0/24 dev eth0\nroute add blackhole 203.0.113.0/24\n');
      await topology.exec(host, ['iptables', '-w', '-A', 'FORWARD', '-s', '198.51.100.0/24', '-j', 'ACCEPT']);
      await topology.exec(host, ['nft', 'add', 'table', 'ip', 'somebody-else']);
    });
    after(async () => {
      await overlay?.[Symbol.asyncDispose]();
      await rm(cniConfDir, { recursive: true });
    });

    async function cleanup(flags: readonly string[] = [], prefix: readonly string[] = []): Promise<RunResult> {
      const { stateDirectory } = host;
      const paths = ['--subnet-file', join(stateDirectory, 'subnet.env')];
      paths.push('--cni-conf-dir', cniConfDir);
      return await topology.exec(host, [...prefix, ...WEFT, 'cleanup', ...paths, ...flags], { okExitCodes: 'any' });
    }

    /** All of the host's network state and weft's files, as text. */
    async function hostState(): Promise<string> {
      return await hostText(topology, host, [
        ['ip', '-o', '-4', 'address', 'show'],
        ['ip', 'route', 'show', 'table', 'main'],
        ['ip', '-6', 'route', 'show', 'table', 'main'],
        ['iptables-save'],
        ['iptables-legacy-save'],
        ['ip6tables-save'],
        ['nft', 'list', 'ruleset'],
        ['ls', '-A', '-I', 'flanneld.log', host.stateDirectory, cniConfDir],
      ]);
    }

    it('refuses while the agent runs, and shows all the same what there is', async () => {
      const before = await hostState();
      const { pid } = overlay.agents[0]!.child;
      const refused = await cleanup();
      assert.equal(refused.exitCode, 1);
      assert.match(
        refused.stderr,
        new RegExp(`an agent runs on it, pid ${pid} \\(node flanneld/main\\.ts\\) \\[WEFT_AGENT_RUNNING\\]`),
      );
      const unseen = await cleanup([], ['unshare', '--pid', '--fork', '--mount-proc']);
      assert.match(unseen.stderr, /an agent runs on it, another process \[WEFT_AGENT_RUNNING\]/);

      const shown = await cleanup(['--dry-run']);
      assert.deepEqual([shown.stderr, shown.exitCode], ['', 0]);
      assert.match(shown.stdout, /^would remove devices:\n {2}flannel0$/m);
      assert.equal(await hostState(), before);
    });

    it('removes all of it and nothing else, once the agent was killed', async () => {
      const { child } = overlay.agents[0]!;
      child.kill('SIGKILL');
      await child.exited;
      // What an agent leaves in other modes and at other times.
      recordStartupError(host.stateDirectory, 'no /dev/net/tun [WEFT_TUN_MISSING]');
      await topology.ipBatch(host, 'route add blackhole fd00:10:244:1::/64 metric 10000 proto 241\n');
      await new IptablesTrafficManager({ netns: host.namespace, flavour: 'legacy' }).ensure(trafficRules(DUAL));
      await topology.ipBatch(
        host,
        'link add flannel.7 type vxlan id 7 dev eth0 dstport 8472\nlink add flannel.x type vxlan id 9 dev eth0 dstport 8473\n',
      );
      const before = await hostState();

      const dry = await cleanup(['--dry-run']);
      assert.equal(await hostState(), before);
      const done = await cleanup([], CONFINED);
      assert.deepEqual([done.stderr, done.exitCode], ['', 0]);
      assert.equal(done.stdout, dry.stdout.replaceAll('would remove', 'removed'));
      for (const line of [
        /^removed CNI configuration:$/,
        /^ {2}\S+\/10-flannel\.conflist$/,
        /^removed files:$/,
        /^ {2}\S+\/subnet\.env$/,
        /^ {2}\S+\/subnet\.env\.last-known\.json$/,
        /^ {2}\S+\/weft\.sock$/,
        /^ {2}\S+\/last-error$/,
        enableNfTables ? /^removed nftables rules:$/ : /^removed iptables rules \(nft\):$/,
        enableNfTables
          ? /^ {2}table ip flannel-ipv4 \{$/
          : /^ {2}iptables-nft -t nat -A POSTROUTING .*FLANNEL-POSTRTG$/,
        enableNfTables
          ? /^ {2}.*ip daddr 192\.168\.77\.1 udp dport 8285 notrack comment "of 10\.244\.0\.0\/16"$/
          : /^ {2}iptables-nft -t raw -N FLANNEL-UNTRACK-OUT$/,
        /^removed iptables rules \(legacy\):$/,
        /^removed routes:$/,
        /^ {2}10\.244\.0\.0\/16 dev flannel0 metric 100$/,
        /^ {2}blackhole 10\.244\.\d+\.0\/24 metric 10000$/,
        /^ {2}blackhole fd00:10:244:1::\/64 metric 10000$/,
        /^removed devices:$/,
        /^ {2}flannel0$/,
        /^ {2}flannel\.7$/,
      ]) {
        assert.match(done.stdout, new RegExp(line, 'm'));
      }
      const left = await hostState();
      const { stdout: vxlan } = await topology.exec(host, ['ip', '-br', 'link', 'show', 'type', 'vxlan']);
      assert.match(vxlan, /^flannel\.x\S* .*\n$/, 'only the one whose name no agent gives');
      await topology.ipBatch(host, 'link delete flannel.x\n');
      assert.doesNotMatch(left, /flannel|subnet\.env|last-error|proto 241/i);
      for (const other of [
        '198.51.100.0/24 dev eth0',
        'blackhole 203.0.113.0/24',
        'cni0',
        'somebody-else',
        '99-other.conflist',
      ]) {
        assert.ok(left.includes(other), other);
      }
      assert.match(left, /^-A FORWARD -s 198\.51\.100\.0\/24 -j ACCEPT$/m);
    });

    it('finds nothing the second time, and does no harm', async () => {
      const before = await hostState();
      for (const flags of [[], ['--dry-run']]) {
        const { stdout, stderr, exitCode } = await cleanup(flags);
        assert.deepEqual({ stdout, stderr, exitCode }, { stdout: NOTHING, stderr: '', exitCode: 0 });
      }
      assert.equal(await hostState(), before);
    });

    it('lets an agent start anew, and goes on after what it cannot remove', async () => {
      const { child } = await overlay.startAgent(host, signal);
      child.kill('SIGTERM');
      await child.exited;
      const subnetFile = join(host.stateDirectory, 'subnet.env');
      await rm(subnetFile);
      await mkdir(subnetFile);
      const conf = join(cniConfDir, '10-flannel.conflist');
      assert.match(await readFile(conf, 'utf8'), /"weft"/);
      await writeFile(conf, '{"name": "cbr0", "plugins": []}');
      const { stdout, stderr, exitCode } = await cleanup();
      assert.equal(exitCode, 1);
      assert.match(
        stderr,
        /^weft: could not clean up everything: files \(.*subnet\.env.*\) \[WEFT_CLEANUP_INCOMPLETE\]/,
      );
      assert.match(stdout, /^removed devices:\n {2}flannel0$/m);
      assert.doesNotMatch(await hostState(), /flannel(?!\.conflist)|proto 241/i);
      assert.ok(existsSync(conf), 'a configuration that weft did not write stays');
      assert.ok(existsSync(subnetFile));
    });
  });
}
