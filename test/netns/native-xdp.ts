import { HOST_DEVICE } from '../../src/lab/namespaces.ts';
import type { Place, Topology } from '../../src/lab/topology.ts';

/** Native XDP on the device, by number; a program in the kernel's substitute for a driver's counts as none. */
export async function xdpOf(topology: Topology, host: Place): Promise<number | undefined> {
  const { stdout } = await topology.exec(host, ['ip', '-j', 'link', 'show', 'dev', HOST_DEVICE]);
  const [link] = JSON.parse(stdout) as [{ xdp?: { mode: number; prog: { id: number } } }];
  return link.xdp?.mode === 1 ? link.xdp.prog.id : undefined;
}
