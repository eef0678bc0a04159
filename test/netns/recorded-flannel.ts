import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { eventually } from './waiting.ts';

export interface RecordedFlannel extends AsyncDisposable {
  /** Which device the kernel has given it. */
  readonly device: string;
  readonly child: Child;
}

const PORT = 8285;

/**
 * What flanneld v0.28.10 was seen to do to a host in its udp mode (test/golden/etcd-udp, and its source): it asks for a TUN
 * device `flannel%d`, which goes with the process; sets the base of its subnet as /32, the MTU, the link up; adds a route for the whole
 * network without protocol or metric, and takes it for success when there is one already; sends each packet as a datagram
 * from its own address and port. Here with one peer.
 */
export async function startRecordedFlannel(
  topology: Topology,
  host: LabHost,
  peer: LabHost,
  {
    subnetBase,
    network,
    mtuBytes,
  }: { readonly subnetBase: string; readonly network: string; readonly mtuBytes: number },
): Promise<RecordedFlannel> {
  const devices = async (): Promise<string[]> => {
    const { stdout } = await topology.exec(host, ['ip', '-o', 'link', 'show', 'type', 'tun']);
    return Array.from(stdout.matchAll(/^\d+: ([^:@]+)/gm), (match) => match[1]!);
  };
  const before = await devices();
  const child = await topology.start(
    host,
    [
      'socat',
      'TUN,tun-name=flannel%d,tun-type=tun,iff-no-pi',
      `UDP4-DATAGRAM:${formatIpv4(peer.address)}:${PORT},bind=${formatIpv4(host.address)}:${PORT}`,
    ],
    { stdout: 'ignore' },
  );
  const device = await eventually('its device', async () => (await devices()).find((name) => !before.includes(name)));
  await topology.ipBatch(
    host,
    `addr add ${subnetBase}/32 dev ${device}\nlink set ${device} mtu ${mtuBytes}\nlink set ${device} up\n`,
  );
  const argv = ['ip', 'route', 'add', network, 'dev', device, 'scope', 'global'];
  const { exitCode, stderr } = await topology.exec(host, argv, { okExitCodes: 'any' });
  if (exitCode !== 0 && !stderr.includes('File exists')) throw new Error(stderr);
  return { device, child, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() };
}
