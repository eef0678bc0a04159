import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { Flanneld, HEALTHZ_PORT, localFlags } from './flanneld.ts';
import { NET_CONF } from './overlay.ts';

const WEFT = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url)),
];
const signal = new AbortController().signal;

interface Report {
  readonly ok: boolean;
  readonly checks: readonly {
    readonly name: string;
    readonly status: string;
    readonly found: string;
    readonly remedy?: string;
  }[];
}

it('weft doctor finds a host with a running agent well, and names what somebody has broken', async () => {
  await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' }, signal);
  const host: LabHost = topology.hosts[0]!;
  const [bin, conf] = [join(host.stateDirectory, 'bin'), join(host.stateDirectory, 'net.d')];
  for (const folder of [bin, conf]) mkdirSync(folder);
  for (const name of ['bridge', 'host-local', 'portmap', 'loopback'])
    symlinkSync(`/usr/lib/cni/${name}`, join(bin, name));
  await topology.exec(host, ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  const flags = localFlags(
    host,
    NET_CONF,
    ...['--ip-masq', `--healthz-port=${HEALTHZ_PORT}`, `--cni-conf-dir=${conf}`, '--cni-conf-template=/nonexistent'],
  );
  const examine = async (under: readonly string[] = []): Promise<Report & { readonly exitCode: number }> => {
    const paths = {
      'subnet-file': join(host.stateDirectory, 'subnet.env'),
      'net-config-path': join(host.stateDirectory, 'net-conf.json'),
      'cni-conf-dir': conf,
      'cni-conf-template': '/nonexistent',
      'cni-bin-dir': bin,
    };
    const argv = [
      ...under,
      ...WEFT,
      'doctor',
      '--json',
      ...Object.entries(paths).map(([flag, path]) => `--${flag}=${path}`),
    ];
    const { stdout, exitCode } = await topology.exec(host, argv, { okExitCodes: 'any' });
    return { ...(JSON.parse(stdout) as Report), exitCode };
  };
  const failed = ({ checks }: Report) => checks.filter(({ status }) => status === 'fail').map(({ name }) => name);

  await using agent = await Flanneld.start(topology, host, { flags });
  await agent.logged(/^flannel is ready/);
  const well = await examine();
  assert.deepEqual(
    well.checks.filter(({ status }) => status !== 'ok'),
    [],
  );
  assert.deepEqual([well.ok, well.exitCode], [true, 0]);

  // The agent would put most of this right at once.
  agent.child.kill('SIGKILL');
  await agent.ended();
  await topology.ipBatch(host, 'route delete 10.244.0.0/16\nlink set flannel0 mtu 1300\n');
  writeFileSync(join(conf, '10-containerd-net.conflist'), '{}');
  const noTun = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$@"', 'sh'];
  const broken = await examine(noTun);
  assert.deepEqual(failed(broken), ['tun-device', 'backend-links', 'routes', 'cni-conf-order']);
  assert.deepEqual([broken.ok, broken.exitCode], [false, 1]);
  for (const { status, remedy } of broken.checks) if (status !== 'ok') assert.ok(remedy);
});
