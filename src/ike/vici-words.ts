import { IPSEC_REQID } from '../desired/state.ts';
import { formatAddr, formatPrefix } from '../ip/address.ts';
import { type IkeConnection, type IkeSettings, type IkeTunnel, NO_TUNNEL } from './ike.ts';
import { type ViciMessage, type ViciValue, viciMessage } from './vici-message.ts';

/** flannel's, which its hosts accept no other than. */
const IKE_PROPOSAL = 'aes256-sha256-modp4096';
/** A peer that has lost its keys without a word, as after a power cut, is found by asking it. */
const ALIVE_EVERY = '30s';
const REKEY_AFTER = '1h';

/** States of a CHILD_SA (strongSwan's child_sa_state_t) in which it carries packets. */
const CARRYING: ReadonlySet<string> = new Set(['INSTALLED', 'UPDATING', 'REKEYING', 'REKEYED']);

/** What `load-conn` takes: flannel's connection, but that a peer is asked whether it is alive. */
export function connectionWords(
  { name, local, remote, localSubnet, remoteSubnet }: IkeConnection,
  { espProposal, udpEncap }: IkeSettings,
): ViciMessage {
  return viciMessage({
    [name]: {
      version: '2',
      local_addrs: [formatAddr(local)],
      remote_addrs: [formatAddr(remote)],
      proposals: [IKE_PROPOSAL],
      encap: udpEncap ? 'yes' : 'no',
      // Without end.
      keyingtries: '0',
      dpd_delay: ALIVE_EVERY,
      local: { auth: 'psk' },
      remote: { auth: 'psk' },
      children: {
        [childName({ localSubnet, remoteSubnet })]: {
          local_ts: [formatPrefix(localSubnet)],
          remote_ts: [formatPrefix(remoteSubnet)],
          esp_proposals: [espProposal],
          mode: 'tunnel',
          reqid: String(IPSEC_REQID),
          // They are the agent's, which keeps them while the daemon is away.
          policies: 'no',
          start_action: 'start',
          close_action: 'trap',
          dpd_action: 'restart',
          rekey_time: REKEY_AFTER,
        },
      },
    },
  });
}

/** As flannel names it. */
export function childName({ localSubnet, remoteSubnet }: Pick<IkeConnection, 'localSubnet' | 'remoteSubnet'>): string {
  return `${formatPrefix(localSubnet)}-${formatPrefix(remoteSubnet)}`;
}

/** From the events `list-sa`, one for each IKE_SA: there may be several of a connection. */
export function tunnelsOf(events: readonly ViciMessage[]): ReadonlyMap<string, IkeTunnel> {
  const found = new Map<string, IkeTunnel>();
  for (const event of events) {
    for (const [name, association] of event) {
      const before = found.get(name) ?? NO_TUNNEL;
      found.set(name, withAssociation(before, sectionOf(association)));
    }
  }
  return found;
}

function withAssociation(tunnel: IkeTunnel, association: ViciMessage): IkeTunnel {
  let { isUp, isIdle, receivedBytes, sentBytes } = tunnel;
  // One that is agreed on, but has no tunnel, waits for nothing.
  if (association.get('state') !== 'ESTABLISHED') isIdle = false;
  for (const child of sectionOf(association.get('child-sas')).values()) {
    const words = sectionOf(child);
    isIdle = false;
    if (CARRYING.has(textOf(words.get('state')))) isUp = true;
    receivedBytes += Number(textOf(words.get('bytes-in')) || 0);
    sentBytes += Number(textOf(words.get('bytes-out')) || 0);
  }
  return { isUp, isIdle, receivedBytes, sentBytes };
}

function sectionOf(value: ViciValue | undefined): ViciMessage {
  return value instanceof Map ? value : new Map();
}

function textOf(value: ViciValue | undefined): string {
  return typeof value === 'string' ? value : '';
}
