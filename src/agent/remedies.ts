import type { Part } from './readiness.ts';

/** What a person can do about a part that fails, where its failure does not say so itself. */
export const REMEDIES: Readonly<Record<Part, string>> = {
  interface:
    'Restore the host’s address, or name another interface with --iface. flanneld --explain-iface lists the candidates.',
  lease:
    'Give this host a subnet of its own: with Kubernetes delete its Node object so that it registers again, with etcd delete the entry of one of the two hosts.',
  forwarder:
    'The agent restarts the packet workers by itself. If this continues, check its log and weft doctor: TUN driver, port and capabilities.',
  kernel:
    'weft status shows the difference. Check what else configures this host: another overlay network, a VPN or a configuration tool may use the same route or device.',
  'key-exchange':
    'The agent starts charon again by itself. See what charon says in the log with -v=2, and whether another strongSwan runs on this host: systemctl disable --now strongswan-starter.',
  rules:
    'Check which of nft and iptables is installed and allowed here (weft doctor), and whether another program writes the same chains.',
  'subnet-env': 'Make the directory of --subnet-file writable for the agent, and check for free disk space.',
  'cni-conf': 'Make --cni-conf-dir writable for the agent, and correct --cni-conf-template.',
};
