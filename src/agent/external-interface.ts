import type { ExternalInterface } from '../backend/backend.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import type { NodeAddresses } from '../config/node-addresses.ts';
import { isLinkLocal6 } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { formatPrefix, type IpAddr, type IpPrefix, isIpv4, parseAddr, prefixOf } from '../ip/address.ts';
import type { Addresses } from '../ip/family.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import type { Log } from '../log/log.ts';
import { choiceLogLines, explainChoice, interfaceNotFound } from '../underlay/explain-choice.ts';
import type { NetworkInterface } from '../underlay/host-network.ts';
import type { ChosenInterface, InterfaceChoice, IpStack } from '../underlay/interface-choice.ts';
import { type KeepOptions, keepOrChooseInterface } from '../underlay/keep-interface.ts';
import type { AgentHost } from './ports.ts';

/** What a subnet manager that knows nodes can add to the choice; parsed from text that people wrote. */
interface NodeHints {
  readonly publicAddresses: Addresses;
  readonly internalIps: readonly IpAddr[];
}

/** @throws WeftError WEFT_USAGE for an annotation that is no address. */
function parseNodeHints(texts: NodeAddresses): NodeHints {
  const parse = <A>(text: string | undefined, read: (text: string) => A | undefined): A | undefined => {
    if (text === undefined) return undefined;
    const address = read(text);
    if (address === undefined)
      throw new WeftError('WEFT_USAGE', `invalid public IP address: ${text} (annotation of the node)`);
    return address;
  };
  return {
    publicAddresses: {
      ipv4: parse(texts.publicAddresses.ipv4, parseIpv4),
      ipv6: parse(texts.publicAddresses.ipv6, parseIpv6),
    },
    internalIps: texts.internalIps.map(parseAddr).filter((address) => address !== undefined),
  };
}

function stackOf(config: Pick<NetworkConfig, 'ipv4' | 'ipv6'>): IpStack {
  if (config.ipv6 === undefined) return 'ipv4';
  return config.ipv4 === undefined ? 'ipv6' : 'dual';
}

/** What an interface is looked for by. */
interface InterfaceSearch {
  readonly readNetwork: AgentHost['readNetwork'];
  readonly options: FlanneldOptions;
  /** The families of the network. */
  readonly config: Pick<NetworkConfig, 'ipv4' | 'ipv6'>;
  /** What the subnet manager knows of this node, if it knows nodes. */
  readonly node: NodeAddresses | undefined;
  readonly keep: KeepOptions;
}

async function choose(
  { readNetwork, options, config, node, keep }: InterfaceSearch,
  signal: AbortSignal,
): Promise<InterfaceChoice> {
  const hints = node && parseNodeHints(node);
  if (options.ifaceFromNodeIp && hints === undefined) {
    throw new WeftError('WEFT_USAGE', '--iface-from-node-ip needs a subnet manager that knows nodes', {
      hint: 'Use it with --kube-subnet-mgr, or name the interface with --iface.',
    });
  }
  const host = await readNetwork(signal, { canReach: options.ifaceCanReach });
  const request = {
    stack: stackOf(config),
    iface: options.iface,
    ifaceRegex: options.ifaceRegex,
    ifaceCanReach: options.ifaceCanReach,
    elseDefault: options.ifaceElseDefault,
    allowLoopback: options.ifaceAllowLoopback,
    nodeIps: options.ifaceFromNodeIp ? hints?.internalIps : undefined,
    // The node's annotations win over the flags, as in flannel.
    publicAddresses: {
      ipv4: hints?.publicAddresses.ipv4 ?? options.publicIp,
      ipv6: hints?.publicAddresses.ipv6 ?? options.publicIpv6,
    },
  };
  return keepOrChooseInterface(request, host, keep);
}

/**
 * The interface that leads to the other nodes: the one in use while it may be kept, else by flannel's rules.
 * @throws WeftError WEFT_INTERFACE_NOT_FOUND with every candidate and why it was not taken.
 */
export async function findExternalInterface(
  search: InterfaceSearch,
  log: Pick<Log, 'info'>,
  signal: AbortSignal,
): Promise<ChosenInterface> {
  const choice = await choose(search, signal);
  for (const { what, error } of choice.failures) log.info(`Could not find valid interface matching ${what}: ${error}`);
  if (!choice.found) throw interfaceNotFound(choice);
  for (const line of choiceLogLines(choice)) log.info(line);
  return choice;
}

/**
 * The networks on an interface's link, each once and in an order of their own: an address that comes or goes inside one of
 * them, or alone (/32, /128), changes nothing about who is reached there.
 */
function networksOn({ addresses }: NetworkInterface): readonly IpPrefix[] {
  const networks = addresses
    .filter(({ addr, prefixLength }) => prefixLength < (isIpv4(addr) ? 32 : 128) && !isLinkLocal6(addr))
    .map(({ addr, prefixLength }) => prefixOf(addr, prefixLength));
  const byText = new Map(networks.map((network) => [formatPrefix(network), network]));
  return [...byText].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, network]) => network);
}

/** What a backend needs of the choice. */
export function externalOf(choice: ChosenInterface): ExternalInterface {
  const { interface: chosen, addresses, publicAddresses } = choice;
  return { name: chosen.name, mtuBytes: chosen.mtuBytes, addresses, publicAddresses, onLink: networksOn(chosen) };
}

/** The table of `--explain-iface`; `found` is false when no interface would do. */
export async function explainInterface(
  search: InterfaceSearch,
  signal: AbortSignal,
): Promise<{ readonly text: string; readonly found: boolean }> {
  const choice = await choose(search, signal);
  return { text: explainChoice(choice), found: choice.found };
}
