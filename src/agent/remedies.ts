import type { Part } from './readiness.ts';

/** What a person can do about a part that fails, where its failure does not say so itself. */
export const REMEDIES: Readonly<Record<Part, string>> = {
  interface:
    'Give the host its address back, or name another interface with --iface. flanneld --explain-iface lists what it could use.',
  lease:
    'Give this host a subnet of its own: with Kubernetes delete its Node object so that it registers anew, with etcd delete the entry of one of the two hosts.',
  forwarder:
    'The agent starts the packet workers again by itself. If it goes on, see its log and weft doctor: TUN driver, port and capabilities.',
  kernel:
    'See the difference with weft status, and who else changes this host: another overlay network, a VPN or a configuration tool has the same route or device.',
  'key-exchange':
    'The agent starts charon again by itself. See what charon says in the log with -v=2, and whether another strongSwan runs on this host: systemctl disable --now strongswan-starter.',
  rules:
    'See which of nft and iptables is installed and allowed here (weft doctor), and who else writes the same chains.',
  'subnet-env': 'Make the directory of --subnet-file writable for the agent and look for free space.',
  'cni-conf': 'Make --cni-conf-dir writable for the agent, and correct --cni-conf-template.',
};
