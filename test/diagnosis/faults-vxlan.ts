import type { Fault } from './bed.ts';

/** What an agent would put right at once, while it hangs. */
const whileItHangs = (name: string, inject: string, ...faults: string[]): Fault => ({
  name,
  inject: { a: `kill -STOP AGENT; ${inject}` },
  heal: { a: 'kill -CONT AGENT' },
  ...{ at: 'a', where: 'this host', faults, leavesDamage: true },
});

export const VXLAN_FAULTS: readonly Fault[] = [
  whileItHangs('a route that is missing', 'ip route delete B_NET dev flannel.1', 'kernel-state'),
  whileItHangs(
    'a stale neighbour entry',
    'ip neigh replace B_DEV lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent',
    'kernel-state',
  ),
  whileItHangs(
    'a forwarding entry with another host’s address',
    'bridge fdb replace $(ip neigh show B_DEV dev flannel.1 | cut -d" " -f3) dev flannel.1 dst C_IP self permanent',
    'kernel-state',
  ),
  whileItHangs('a device that is down', 'ip link set flannel.1 down', 'kernel-state', 'backend-links'),
  whileItHangs('a device that was deleted', 'ip link delete flannel.1', 'kernel-state', 'backend-links'),
  {
    ...whileItHangs(
      'a device that was renamed',
      'ip link set flannel.1 down; ip link set flannel.1 name other',
      'kernel-state',
      'backend-links',
    ),
    // Two devices cannot have one VNI.
    heal: { a: 'ip link delete other; kill -CONT AGENT' },
  },
  whileItHangs('a device without its address', 'ip address flush dev flannel.1', 'kernel-state', 'backend-links'),
  whileItHangs('a device with another MTU', 'ip link set flannel.1 mtu 1300', 'kernel-state', 'backend-links'),
  {
    name: 'a firewall of a peer that drops VXLAN',
    inject: { b: 'iptables -I INPUT -p udp --dport 8472 -s A_IP -j DROP' },
    heal: { b: 'iptables -D INPUT -p udp --dport 8472 -s A_IP -j DROP' },
    ...{ at: 'a', where: 'b', faults: ['one-way'] },
  },
];
