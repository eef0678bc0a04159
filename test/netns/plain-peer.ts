import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { eventually } from './waiting.ts';

export interface PlainPeerOptions {
  /** Of its TUN device, with the network's length: `10.244.1.0/16`. */
  readonly tunAddress: string;
  /** Its own address and port, and that of the one host it talks to. */
  readonly local: string;
  readonly remote: string;
  readonly mtuBytes: number;
}

/**
 * A host of an overlay that knows nothing of weft: socat between a TUN device without any offload and a UDP socket, one
 * inner packet in each datagram, as flannel's own forwarder has it.
 */
export async function startPlainPeer(topology: Topology, host: LabHost, options: PlainPeerOptions): Promise<void> {
  const { tunAddress, local, remote, mtuBytes } = options;
  const device = 'plain0';
  await topology.start(
    host,
    [
      'socat',
      `TUN:${tunAddress},tun-name=${device},tun-type=tun,iff-no-pi,iff-up`,
      `UDP4-DATAGRAM:${remote},bind=${local}`,
    ],
    { stdout: 'ignore' },
  );
  await eventually('socat has made its device', async () => {
    const { stdout } = await topology.exec(host, ['ip', '-o', 'link', 'show', 'up', 'type', 'tun']);
    return stdout.includes(device) || undefined;
  });
  await topology.ipBatch(host, `link set ${device} mtu ${mtuBytes}\n`);
}
