import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { golden } from '../fakes/golden.ts';

/** One host of a vxlan network: what the others know of it. */
export interface VxlanHost {
  /** The first address of its subnet, which its device has. */
  readonly base: string;
  readonly address: string;
  readonly mac: string;
}

/** A Node as a real flanneld with vxlan has annotated it. */
export interface RecordedNode extends VxlanHost {
  readonly name: string;
  readonly annotations: Record<string, string>;
  readonly podCIDR: string;
  readonly podCIDRs: string[];
}

/** The three Nodes of test/golden/vxlan. */
export function recordedNodes(): readonly RecordedNode[] {
  const nodes = JSON.parse(`[${golden('vxlan', '31-nodes-trimmed.json').replaceAll(/^\}\n\{/gm, '},{')}]`);
  return (nodes as Omit<RecordedNode, keyof VxlanHost>[]).map(({ name, annotations, podCIDR, podCIDRs }) => {
    const said = (key: string): string => annotations[`flannel.alpha.coreos.com/${key}`] ?? '';
    const { VtepMAC: mac } = JSON.parse(said('backend-data')) as { VtepMAC: string };
    const base = podCIDR.slice(0, podCIDR.indexOf('/'));
    return { ...{ name, annotations, podCIDR, podCIDRs }, ...{ base, mac, address: said('public-ip') } };
  });
}

/**
 * What flanneld v0.28 with vxlan was seen to make on a host (test/golden/vxlan), by hand: a device with the base of the subnet, and for
 * each peer a neighbour, a forwarding entry and a route, none of which it ever takes back for a peer that went while it did not run.
 */
export async function makeRecordedVxlan(
  topology: Topology,
  host: LabHost,
  own: VxlanHost,
  peers: readonly VxlanHost[],
): Promise<void> {
  await topology.ipBatch(
    host,
    [
      `link add flannel.1 address ${own.mac} mtu 1450 type vxlan id 1 dev eth0 local ${own.address} dstport 8472 nolearning`,
      `address add ${own.base}/32 dev flannel.1`,
      'link set flannel.1 up',
      ...peers.flatMap(({ base, mac }) => [
        `neighbour add ${base} lladdr ${mac} dev flannel.1 nud permanent`,
        `route add ${base}/24 via ${base} dev flannel.1 onlink`,
      ]),
      '',
    ].join('\n'),
  );
  for (const { mac, address } of peers) {
    const entry = ['bridge', 'fdb', 'add', mac, 'dev', 'flannel.1', 'dst', address, 'self', 'permanent'];
    await topology.exec(host, entry);
  }
}
