import assert from 'node:assert/strict';
import { chmodSync, chownSync, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Topology } from '../../src/lab/topology.ts';
import { run } from '../../src/linux/run.ts';
import { Flanneld, HEALTHZ_PORT, localFlags } from './flanneld.ts';
import { NET_CONF } from './overlay.ts';

/**
 * Which capabilities the programs use: those that deploy/ gives to their containers. Each test runs a program with these alone,
 * and without one of them, which must be missed; otherwise the manifest asks for too much.
 */

const WEFT = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url)),
];
const STRANGER = 12_345;

/** As a container runtime starts a container's first process: root, with these capabilities, and no way to more. */
const withOnly = (...capabilities: readonly string[]): string[] => [
  'setpriv',
  `--bounding-set=${['-all', ...capabilities.map((name) => `+${name}`)].join()}`,
  ...['--inh-caps=-all', '--no-new-privs', '--'],
];

describe('the agent', () => {
  for (const [flavour, netConf, rules] of [
    ['iptables', NET_CONF, ['iptables-save']],
    ['nftables', NET_CONF.replace('{', '{"EnableNFTables": true, '), ['nft', 'list', 'ruleset']],
  ] as const) {
    it(`needs NET_ADMIN and NET_RAW, with ${flavour}`, async () => {
      await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
      const host = topology.hosts[0]!;
      const conf = join(host.stateDirectory, 'net.d');
      const flags = localFlags(host, netConf, '--ip-masq', `--healthz-port=${HEALTHZ_PORT}`, `--cni-conf-dir=${conf}`);
      const under = withOnly('net_admin', 'net_raw');
      await using agent = await Flanneld.start(topology, host, { flags, under });
      await agent.answers('/readyz', 200, /ready/);
      assert.ok(existsSync(join(conf, '10-flannel.conflist')));
      assert.match((await topology.exec(host, rules)).stdout, /flannel/i);
      // No warning of a capability but BPF, without which there is no fast path.
      assert.deepEqual(
        agent.messages.filter((text) => /CAP_|not permitted|EPERM|EACCES/.test(text) && !/fast path/.test(text)),
        [],
      );
    });
  }

  for (const [missing, kept, message] of [
    ['net_admin', 'net_raw', /WEFT_TUN_.*NET_ADMIN/],
    ['net_raw', 'net_admin', /CAP_NET_RAW|NET_RAW/],
  ] as const) {
    it(`misses ${missing}`, async () => {
      await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
      const host = topology.hosts[0]!;
      await using agent = await Flanneld.start(topology, host, {
        flags: localFlags(host, NET_CONF),
        under: withOnly(kept),
      });
      await agent.logged(message);
    });
  }

  it('misses DAC_OVERRIDE where the folder for its CNI configuration belongs to another user', async () => {
    await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
    const host = topology.hosts[0]!;
    const conf = join(host.stateDirectory, 'net.d');
    mkdirSync(conf, { recursive: true });
    chownSync(conf, STRANGER, STRANGER);
    const flags = localFlags(host, NET_CONF, `--healthz-port=${HEALTHZ_PORT}`, `--cni-conf-dir=${conf}`);
    {
      await using without = await Flanneld.start(topology, host, { flags, under: withOnly('net_admin', 'net_raw') });
      await without.logged(/EACCES/);
    }
    const under = withOnly('net_admin', 'net_raw', 'dac_override');
    await using agent = await Flanneld.start(topology, host, { flags, under });
    await agent.answers('/readyz', 200, /ready/);
    assert.ok(existsSync(join(conf, '10-flannel.conflist')));
  });
});

describe('weft install-cni --tun-device', () => {
  /** With a /dev/net of its own, in which there is no device; prints what is there afterwards. */
  async function install(binDir: string, ...capabilities: readonly string[]) {
    const script = 'mount -t tmpfs none /dev/net && "$@"; status=$?; ls -l /dev/net; exit $status';
    const command = [...withOnly(...capabilities), ...WEFT, 'install-cni', '--tun-device', `--bin-dir=${binDir}`];
    return run(['unshare', '--mount', 'sh', '-c', script, 'sh', ...command], { okExitCodes: 'any' });
  }

  it('needs MKNOD for the device, and DAC_OVERRIDE for a folder of another user', async () => {
    await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
    const folder = join(topology.stateDirectory, 'bin');
    mkdirSync(folder, { recursive: true });
    chmodSync(folder, 0o755);
    chownSync(folder, STRANGER, STRANGER);
    const refused = await install(folder, 'mknod');
    assert.equal(refused.exitCode, 1);
    assert.match(refused.stderr, /WEFT_OUTPUT_UNWRITABLE/);
    const done = await install(folder, 'mknod', 'dac_override');
    assert.equal(done.exitCode, 0, done.stderr);
    assert.match(done.stdout, /^made \/dev\/net\/tun \(character device 10:200\)$/m);
    assert.match(done.stdout, /^crw\S* .* 10, +200 .* tun$/m);
    assert.ok(existsSync(join(folder, 'portmap')));
  });

  it('goes on without the device, which other backends do not need, and says how to get it', async () => {
    await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
    const { exitCode, stdout, stderr } = await install(join(topology.stateDirectory, 'bin'));
    assert.equal(exitCode, 0, stderr);
    assert.doesNotMatch(stdout, /10, +200/);
    assert.match(stderr, /warning: no TUN device: mknod \/dev\/net\/tun c 10 200: EPERM.*modprobe tun/);
  });
});
