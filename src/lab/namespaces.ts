/**
 * The plan of a lab as data and as `ip -batch` scripts: which namespaces, which cables, which addresses. Pure; topology.ts
 * applies it. Nothing is ever made in the machine's own namespace: both ends of every cable are born inside.
 *
 *     weft-<id>-net   br0 192.168.77.254 ── port1, port2, … (the underlay switch, also everybody's default gateway)
 *     weft-<id>-store eth0 192.168.77.253 ── portstore (only where the subnet store is a server)
 *     weft-<id>-h1    eth0 192.168.77.1 ── port1;  cni0 ── vethc1, vethc2 (once the host has its subnet)
 *     weft-<id>-h1c1  eth0 ── vethc1 of h1
 */
import { WeftError } from '../errors.ts';
import { formatIpv4, type Ipv4Addr, ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import { type Ipv4Prefix, prefix4 } from '../ip/prefix.ts';

/**
 * What lies between hosts: veth as it is; `wire`: each host cuts what it sends to MTU size and sums it in software, as with a NIC
 * without offloads; `switch`: hosts hand over large packets, as to a NIC that cuts them (TSO, USO), and the switch cuts them.
 */
export type Underlay = 'native' | 'wire' | 'switch';

export interface TopologyPlan {
  readonly id: string;
  /** The namespace of the underlay switch. */
  readonly switchNamespace: string;
  readonly underlay: Underlay;
  readonly underlayMtuBytes: number;
  readonly backToBack: boolean;
  readonly hosts: readonly HostPlan[];
  /** Where servers run that all hosts reach over the underlay. */
  readonly store: StationPlan | undefined;
}

/** A namespace with a cable to the underlay switch. */
export interface StationPlan {
  /** Short name: `h1`. */
  readonly name: string;
  readonly namespace: string;
  /** On {@link HOST_DEVICE}. */
  readonly address: Ipv4Addr;
  /** Of {@link HOST_DEVICE}: locally administered, and ends with the address. */
  readonly macAddress: string;
  /** The port of the underlay switch that its cable is in. */
  readonly switchPort: string;
}

export interface HostPlan extends StationPlan {
  readonly containers: readonly ContainerPlan[];
}

export interface ContainerPlan {
  /** Short name: `h1c1`. */
  readonly name: string;
  readonly namespace: string;
  /** The host's end of the cable, a port of {@link CNI_BRIDGE}. */
  readonly hostDevice: string;
}

export const HOST_DEVICE = 'eth0';
export const CONTAINER_DEVICE = 'eth0';
export const CNI_BRIDGE = 'cni0';
export const SWITCH_BRIDGE = 'br0';
export const UNDERLAY_NETWORK: Ipv4Prefix = prefix4(parseIpv4('192.168.77.0')!, 24);
export const UNDERLAY_GATEWAY: Ipv4Addr = ipv4Of(UNDERLAY_NETWORK.addr + 254);
export const STORE_ADDRESS: Ipv4Addr = ipv4Of(UNDERLAY_NETWORK.addr + 253);
export const MAX_HOSTS = 250;

export interface PlanOptions {
  /** Lower-case letters and digits, 1 … 16. */
  readonly id: string;
  /** 1 … {@link MAX_HOSTS} */
  readonly hosts: number;
  /** 0 … 200, default 2. */
  readonly containersPerHost?: number | undefined;
  readonly underlay?: Underlay | undefined;
  /** Default 1500. */
  readonly underlayMtuBytes?: number | undefined;
  /** One cable between two hosts and no switch: the bench measures the overlay and not a bridge. */
  readonly backToBack?: boolean | undefined;
  /** A namespace for a store's servers. */
  readonly store?: boolean | undefined;
}

/** @throws WeftError WEFT_USAGE when an option is out of range. */
export function planTopology(options: PlanOptions): TopologyPlan {
  const { id, hosts, containersPerHost = 2, underlay = 'native', underlayMtuBytes = 1500 } = options;
  const { backToBack = false, store = false } = options;
  if (backToBack && (hosts !== 2 || store))
    throw new WeftError('WEFT_USAGE', `${hosts + Number(store)} hosts back to back: one cable has two ends`);
  if (backToBack && underlay === 'switch')
    throw new WeftError('WEFT_USAGE', 'hosts back to back have no switch between them that could cut packets');
  if (!/^[a-z0-9]{1,16}$/.test(id))
    throw new WeftError('WEFT_USAGE', `lab id ${JSON.stringify(id)}: want 1 to 16 of a-z, 0-9`);
  checkRange('number of hosts', hosts, 1, MAX_HOSTS);
  checkRange('containers per host', containersPerHost, 0, 200);
  checkRange('underlay MTU', underlayMtuBytes, 576, 65_535);
  return {
    id,
    switchNamespace: `weft-${id}-net`,
    underlay,
    underlayMtuBytes,
    backToBack,
    hosts: Array.from({ length: hosts }, (_, i) => {
      const name = `h${i + 1}`;
      return {
        ...stationPlan(id, name, ipv4Of(UNDERLAY_NETWORK.addr + i + 1), `port${i + 1}`),
        containers: Array.from({ length: containersPerHost }, (_, j) => ({
          name: `${name}c${j + 1}`,
          namespace: `weft-${id}-${name}c${j + 1}`,
          hostDevice: `vethc${j + 1}`,
        })),
      };
    }),
    store: store ? stationPlan(id, 'store', STORE_ADDRESS, 'portstore') : undefined,
  };
}

function stationPlan(id: string, name: string, address: Ipv4Addr, switchPort: string): StationPlan {
  const macAddress = `02:00:${address.toString(16).replace(/..(?!$)/g, '$&:')}`;
  return { name, namespace: `weft-${id}-${name}`, address, macAddress, switchPort };
}

/** All that is on the underlay switch. */
export function stationsOf({ hosts, store }: TopologyPlan): readonly StationPlan[] {
  return store === undefined ? hosts : [...hosts, store];
}

function checkRange(what: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new WeftError('WEFT_USAGE', `${what} ${value}: want a whole number from ${least} to ${most}`);
  }
}

/** Every namespace of the plan, the switch first. */
export function namespacesOf(plan: TopologyPlan): string[] {
  return [
    plan.switchNamespace,
    ...(plan.store === undefined ? [] : [plan.store.namespace]),
    ...plan.hosts.flatMap((host) => [host.namespace, ...host.containers.map((container) => container.namespace)]),
  ];
}

/** `ip -batch` in the machine's namespace: the namespaces and the cables between hosts and switch. */
export function createScript(plan: TopologyPlan): string {
  const [first, second] = plan.hosts;
  const namespaces = namespacesOf(plan).map((name) => `netns add ${name}`);
  if (plan.backToBack && first !== undefined && second !== undefined) {
    const end = (host: HostPlan): string => `name ${HOST_DEVICE} mtu ${plan.underlayMtuBytes} netns ${host.namespace}`;
    return script([...namespaces, `link add ${end(first)} type veth peer ${end(second)}`]);
  }
  return script([...namespaces, ...stationsOf(plan).map((station) => cable(plan, station))]);
}

/** `ip -batch` in the machine's namespace: one host again, after its namespace and its cable are gone. */
export function recreateScript(plan: TopologyPlan, host: StationPlan): string {
  return script([`netns add ${host.namespace}`, cable(plan, host)]);
}

function cable({ switchNamespace, underlayMtuBytes }: TopologyPlan, station: StationPlan): string {
  return (
    `link add ${station.switchPort} mtu ${underlayMtuBytes} netns ${switchNamespace} type veth ` +
    `peer name ${HOST_DEVICE} address ${station.macAddress} mtu ${underlayMtuBytes} netns ${station.namespace}`
  );
}

/** `ip -n <switch> -batch`. */
export function switchScript(plan: TopologyPlan): string {
  return script([
    'link set lo up',
    `link add ${SWITCH_BRIDGE} mtu ${plan.underlayMtuBytes} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
    ...stationsOf(plan).map(plugIn),
    `address add ${formatIpv4(UNDERLAY_GATEWAY)}/${UNDERLAY_NETWORK.length} dev ${SWITCH_BRIDGE}`,
    `link set ${SWITCH_BRIDGE} up`,
  ]);
}

/** A line for `ip -n <switch>`: the switch's end of a cable. */
export function plugIn(station: StationPlan): string {
  return `link set ${station.switchPort} master ${SWITCH_BRIDGE} up`;
}

/**
 * The kernel has one table of ARP entries for all namespaces, 1,024 by default (net.ipv4.neigh.default.gc_thresh3 of the
 * machine, which is not ours to change): hosts that all talk to each other fill it with their square, and then packets are
 * lost. Permanent entries do not count, so larger labs have those.
 */
const ARP_UP_TO_HOSTS = 16;

/** `ip -n <host> -batch`, or that of the store. */
export function stationScript(plan: TopologyPlan, host: StationPlan): string {
  const peers = plan.hosts.length > ARP_UP_TO_HOSTS ? stationsOf(plan).filter((peer) => peer !== host) : [];
  return script([
    'link set lo up',
    `address add ${formatIpv4(host.address)}/${UNDERLAY_NETWORK.length} dev ${HOST_DEVICE}`,
    `link set ${HOST_DEVICE} up`,
    `route add default via ${formatIpv4(UNDERLAY_GATEWAY)} dev ${HOST_DEVICE}`,
    ...peers.map(
      (peer) => `neighbour add ${formatIpv4(peer.address)} lladdr ${peer.macAddress} dev ${HOST_DEVICE} nud permanent`,
    ),
  ]);
}

/** What a host's containers are attached with: subnet.env, as the CNI bridge plugin uses it. */
export interface ContainerNetwork {
  /** The host's own subnet. */
  readonly subnet: Ipv4Prefix;
  /** FLANNEL_SUBNET's address: of the cni0 bridge, the containers' default gateway. */
  readonly gateway: Ipv4Addr;
  readonly mtuBytes: number;
}

/**
 * The address of container number `index` (0 …): the ones after the gateway.
 *
 * @throws WeftError WEFT_USAGE when the subnet has no room for it.
 */
export function containerAddress(network: ContainerNetwork, index: number): Ipv4Addr {
  const address = network.gateway + 1 + index;
  const last = network.subnet.addr + 2 ** (32 - network.subnet.length) - 2;
  if (address > last) {
    throw new WeftError(
      'WEFT_USAGE',
      `no address for container ${index + 1} in ${formatIpv4(network.subnet.addr)}/${network.subnet.length}`,
    );
  }
  return ipv4Of(address);
}

/** `ip -n <host> -batch`: cni0 and the cables to the containers. */
export function bridgeScript(host: HostPlan, network: ContainerNetwork): string {
  const { mtuBytes, subnet, gateway } = network;
  return script([
    `link add ${CNI_BRIDGE} mtu ${mtuBytes} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
    `address add ${formatIpv4(gateway)}/${subnet.length} dev ${CNI_BRIDGE}`,
    ...host.containers.flatMap((container) => [
      `link add ${container.hostDevice} mtu ${mtuBytes} type veth ` +
        `peer name ${CONTAINER_DEVICE} mtu ${mtuBytes} netns ${container.namespace}`,
      `link set ${container.hostDevice} master ${CNI_BRIDGE} up`,
    ]),
    `link set ${CNI_BRIDGE} up`,
  ]);
}

/** `ip -n <container> -batch`. */
export function containerScript(network: ContainerNetwork, address: Ipv4Addr): string {
  return script([
    'link set lo up',
    `address add ${formatIpv4(address)}/${network.subnet.length} dev ${CONTAINER_DEVICE}`,
    `link set ${CONTAINER_DEVICE} up`,
    `route add default via ${formatIpv4(network.gateway)} dev ${CONTAINER_DEVICE}`,
  ]);
}

/**
 * Settings that make a veth end cut what it sends to MTU size, and sum it, in software, as for a NIC without offloads;
 * GRO on, so that the receiver puts together again what a NIC's driver would. To be applied at both ends of the underlay, or at
 * the switch's ends of its cables.
 */
export function wireLikeCommand(device: string): string[] {
  return [
    ...['ethtool', '-K', device, 'tx', 'off', 'tso', 'off', 'gso', 'off', 'tx-udp-segmentation', 'off'],
    ...['tx-udp_tnl-segmentation', 'off', 'tx-udp_tnl-csum-segmentation', 'off', 'gro', 'on'],
  ];
}

function script(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`;
}
