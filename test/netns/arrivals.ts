import type { LabContainer, LabHost, Topology } from '../../src/lab/topology.ts';
import { eventually, LineFeed } from './waiting.ts';

/** The lines that arrive at a container in UDP datagrams to `port`, from whomever. */
export async function udpArrivals(topology: Topology, container: LabContainer, port: number): Promise<LineFeed> {
  const listener = await topology.start(container, ['socat', '-u', `UDP4-RECV:${port},rcvbuf=1000000`, 'STDOUT']);
  const feed = new LineFeed(listener.stdout!);
  await eventually('the listener is there', async () => {
    const { stdout } = await topology.exec(container, ['ss', '-Huln', `sport = :${port}`]);
    return stdout.includes(String(port)) || undefined;
  });
  return feed;
}

/** What passes weft is not to be refused by the kernel's own source check, if this machine has it on. */
export async function withoutReversePathFilter(topology: Topology, host: LabHost): Promise<void> {
  const off = 'for each in all default; do echo 0 >/proc/sys/net/ipv4/conf/$each/rp_filter; done';
  await topology.exec(host, ['sh', '-c', off]);
}
