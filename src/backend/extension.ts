import { type BackendKeyTable, STRING } from '../config/backend-keys.ts';
import type { HostCommand } from '../config/host-command.ts';
import { formatAddr, formatPrefix } from '../ip/address.ts';
import type { FamilyKey } from '../ip/family.ts';
import type { JsonValue, Lease } from '../lease/lease.ts';
import { type BackendKind, NO_PEER_STATE } from './backend.ts';
import { attrsOf, hostState, otherType, peerFamilies, requireFamilies } from './shared.ts';

type Words = HostCommand['words'];

interface ExtensionConfig {
  readonly preStartup: Words | undefined;
  readonly postStartup: Words | undefined;
  readonly subnetAdd: Words | undefined;
  readonly subnetRemove: Words | undefined;
}

const KEYS = {
  PreStartupCommand: STRING,
  PostStartupCommand: STRING,
  SubnetAddCommand: STRING,
  SubnetRemoveCommand: STRING,
} as const satisfies BackendKeyTable;

/** Names of the variables that a command is given, as flannel has them. */
const VARIABLES: Readonly<Record<FamilyKey, { readonly subnet: string; readonly publicAddress: string }>> = {
  ipv4: { subnet: 'SUBNET', publicAddress: 'PUBLIC_IP' },
  ipv6: { subnet: 'IPV6SUBNET', publicAddress: 'PUBLIC_IPV6' },
};

/**
 * Programs of the user's make the way (flannel's extension): one before there is a lease, whose output the peers are told; one
 * after that; one for each peer that comes, and one for each that goes. There is no shell: a command is words, parted by white
 * space.
 */
export const extension: BackendKind<ExtensionConfig, string | undefined, typeof KEYS> = {
  type: 'extension',
  families: ['ipv4', 'ipv6'],
  keys: KEYS,
  isCarriedByOthers: true,
  owns: () => [],
  parse: (values) => ({
    preStartup: wordsOf(values.PreStartupCommand),
    postStartup: wordsOf(values.PostStartupCommand),
    subnetAdd: wordsOf(values.SubnetAddCommand),
    subnetRemove: wordsOf(values.SubnetRemoveCommand),
  }),
  async identify({ preStartup }, _network, _past, host, signal) {
    if (preStartup === undefined) return undefined;
    return (await host.runCommand({ words: preStartup, env: {}, stdin: '' }, signal)).stdout;
  },
  identityIn: ({ ipv4 }) => (typeof ipv4 === 'string' ? ipv4 : undefined),
  open({ postStartup, subnetAdd, subnetRemove }, data, network, external) {
    const families = requireFamilies(network, extension);
    // What --public-ip says is not published, as with flannel.
    const published = { ...external, publicAddresses: external.addresses };
    const { ipv4 } = network;
    // Of all families: where there is no IPv4, too, flannel looks for it here.
    const attrs = {
      ...attrsOf(extension.type, published, families, () => undefined),
      backendData: { ipv4: data, ipv6: undefined },
    };
    return {
      attrs,
      usesPeerData: true,
      mtuBytes: external.mtuBytes,
      host: (own) => {
        const kernel = hostState({}, network);
        if (postStartup === undefined) return { kernel };
        const env = {
          NETWORK: ipv4 === undefined ? '' : formatPrefix(ipv4.network),
          ...variablesOf({ ...own, attrs }),
        };
        return { kernel, hook: { words: postStartup, env, stdin: '' } };
      },
      peer(_own, peer) {
        const other = otherType(peer, extension.type);
        if (other !== undefined) return other;
        const reachable = peerFamilies(peer, families);
        if ('skipped' in reachable) return reachable;
        const stdin = textOf(peer.attrs.backendData.ipv4);
        if (stdin === undefined) return { skipped: 'its backend data is not a text' };
        const command = (words: Words | undefined): HostCommand | undefined =>
          words === undefined ? undefined : { words, env: variablesOf(peer), stdin };
        return { kernel: NO_PEER_STATE, hook: { add: command(subnetAdd), remove: command(subnetRemove) } };
      },
    };
  },
};

/** As Go's strings.Fields; a command of white space alone is none. */
function wordsOf(command: string | undefined): Words | undefined {
  const [first, ...others] = (command ?? '').split(/\p{White_Space}+/u).filter((word) => word !== '');
  return first === undefined ? undefined : [first, ...others];
}

/** What a lease does not have is empty: all of them are set, so that none comes from the environment of the agent. */
function variablesOf(lease: Lease): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const key of ['ipv4', 'ipv6'] as const) {
    const subnet = lease.subnets[key];
    const address = lease.attrs.publicAddresses[key];
    const names = VARIABLES[key];
    variables[names.subnet] = subnet === undefined ? '' : formatPrefix(subnet);
    variables[names.publicAddress] = address === undefined ? '' : formatAddr(address);
  }
  return variables;
}

/** A peer without a PreStartupCommand has no data. */
function textOf(data: JsonValue | undefined): string | undefined {
  if (data === undefined || data === null) return '';
  return typeof data === 'string' ? data : undefined;
}
