import { DATAGRAM_SENDER, type Fault } from './bed.ts';

/** A table of nft with one chain, by hook; the rule is what breaks. `netdev` chains are of eth0. */
export const nft = (family: 'inet' | 'netdev', hook: string, rule: string): string =>
  [
    'nft -f - <<E',
    `table ${family} broken {`,
    'chain c {',
    `type filter hook ${hook}${family === 'netdev' ? ' device eth0' : ''} priority -5; policy accept;`,
    rule,
    '}',
    '}',
    'E',
  ].join('\n');
export const unbroken = (family: 'inet' | 'netdev'): string => `nft delete table ${family} broken`;
const tunnel = 'udp dport 8285';

export const UDP_FAULTS: readonly Fault[] = [
  {
    name: 'a silent middlebox: long packets vanish before a peer',
    inject: { b: nft('netdev', 'ingress', 'meta length > 1314 drop') },
    heal: { b: unbroken('netdev') },
    ...{ at: 'a', where: 'b', faults: ['mtu-blackhole'] },
  },
  {
    name: 'a firewall that drops fragments',
    // Before conntrack puts them together.
    inject: {
      b: 'nft add table inet broken; nft "add chain inet broken c { type filter hook prerouting priority -450; }"; nft add rule inet broken c iifname flannel0 "ip frag-off & 0x1fff != 0" drop',
    },
    heal: { b: unbroken('inet') },
    ...{ at: 'a', where: 'b', faults: ['fragments-dropped'] },
  },
  {
    name: 'a device of this host that corrupts checksums',
    inject: {
      a: nft('netdev', 'egress', `ip daddr B_IP ${tunnel} @th,136,8 17 @th,272,16 != 0 @th,272,16 set 0xdead`),
    },
    heal: { a: unbroken('netdev') },
    ...{ at: 'a', where: 'b', faults: ['checksum-offload'] },
  },
  {
    name: 'an iptables FORWARD chain that drops packets',
    inject: { a: 'iptables-legacy -P FORWARD DROP' },
    heal: { a: 'iptables-legacy -P FORWARD ACCEPT' },
    ...{ at: 'a', where: 'this host', faults: ['forward-drops'] },
  },
  {
    name: 'an nftables chain that drops forwarded packets',
    inject: { a: nft('inet', 'forward', 'ip saddr 10.244.0.0/16 drop') },
    heal: { a: unbroken('inet') },
    ...{ at: 'a', where: 'this host', faults: ['forward-drops', 'not-forwarded'] },
  },
  {
    name: 'a firewall of the peer that lets nothing in',
    inject: { b: nft('inet', 'input', `ip saddr A_IP ${tunnel} drop`) },
    heal: { b: unbroken('inet') },
    ...{ at: 'a', where: 'b', faults: ['one-way'] },
  },
  {
    name: 'the same firewall, from the side of the peer',
    inject: { b: nft('inet', 'input', `ip saddr A_IP ${tunnel} drop`) },
    heal: { b: unbroken('inet') },
    ...{ at: 'b', where: 'a', faults: ['tunnel-blocked'] },
  },
  {
    name: 'a firewall of this host that lets nothing out',
    inject: { a: nft('inet', 'output', `ip daddr B_IP ${tunnel} drop`) },
    heal: { a: unbroken('inet') },
    ...{ at: 'a', where: 'b', faults: ['one-way'] },
  },
  {
    name: 'a firewall that is closed in both directions',
    inject: {
      b: nft('inet', 'input', `ip saddr A_IP ${tunnel} drop`),
      a: nft('inet', 'input', `ip saddr B_IP ${tunnel} drop`),
    },
    heal: { b: unbroken('inet'), a: unbroken('inet') },
    ...{ at: 'a', where: 'b', faults: ['tunnel-blocked'] },
  },
  {
    name: 'datagrams that go to the wrong port',
    inject: { a: nft('netdev', 'egress', `ip daddr B_IP ${tunnel} udp dport set 8286`) },
    heal: { a: unbroken('netdev') },
    ...{ at: 'a', where: 'b', faults: ['one-way'] },
  },
  {
    name: 'a firewall of the peer that refuses the overlay',
    inject: { b: nft('inet', 'input', 'ip saddr A_DEV icmp type echo-request reject with icmpx admin-prohibited') },
    heal: { b: unbroken('inet') },
    ...{ at: 'a', where: 'b', faults: ['rejected'] },
  },
  {
    name: 'an OUTPUT chain that drops what goes to a peer’s subnet',
    inject: { a: nft('inet', 'output', 'ip daddr B_NET drop') },
    heal: { a: unbroken('inet') },
    ...{ at: 'a', where: 'b', faults: ['local-firewall'] },
  },
  {
    name: 'loss on the wire',
    inject: { b: nft('netdev', 'ingress', `${tunnel} numgen random mod 100 < 45 drop`) },
    heal: { b: unbroken('netdev') },
    ...{ at: 'a', where: 'b', faults: ['lossy'] },
  },
  {
    name: 'bytes that change on the wire',
    inject: { b: nft('netdev', 'ingress', `${tunnel} numgen random mod 100 < 45 @th,144,16 set 0xbeef`) },
    heal: { b: unbroken('netdev') },
    ...{ at: 'a', where: 'b', faults: ['lossy'] },
  },
  {
    name: 'a peer whose cable is unplugged',
    inject: { switch: 'ip link set B_PORT down' },
    heal: { switch: 'ip link set B_PORT up' },
    ...{ at: 'a', where: 'b', faults: ['peer-unreachable'] },
  },
  {
    name: 'a stale ARP entry of a peer',
    inject: { a: 'ip neigh replace B_IP lladdr 02:00:00:00:00:99 dev eth0 nud permanent' },
    heal: { a: 'ip neigh delete B_IP dev eth0' },
    ...{ at: 'a', where: 'b', faults: ['underlay-neighbour'] },
  },
  {
    name: 'no route to the peer’s host',
    inject: { a: 'ip route add unreachable B_IP/32' },
    heal: { a: 'ip route delete unreachable B_IP/32' },
    ...{ at: 'a', where: 'b', faults: ['underlay-route'] },
  },
  {
    name: 'the underlay interface of this host is down',
    inject: { b: 'ip link set eth0 down' },
    heal: { b: 'ip link set eth0 up; ip route replace default via 192.168.77.254' },
    ...{ at: 'b', where: 'this host', faults: ['external-interface'] },
  },
  {
    name: 'the underlay address of this host is gone',
    inject: { b: 'ip address delete B_IP/24 dev eth0' },
    heal: { b: 'ip address add B_IP/24 dev eth0; ip route replace default via 192.168.77.254' },
    ...{ at: 'b', where: 'this host', faults: ['external-interface', 'agent'] },
  },
  {
    name: 'a peer with another address than it has published',
    inject: { b: 'kill -STOP AGENT; ip address delete B_IP/24 dev eth0; ip address add 192.168.77.77/24 dev eth0' },
    heal: {
      b: 'ip address delete 192.168.77.77/24 dev eth0; ip address add B_IP/24 dev eth0; ip route replace default via 192.168.77.254; kill -CONT AGENT',
    },
    ...{ at: 'a', where: 'b', faults: ['peer-unreachable'] },
  },
  {
    name: 'ip_forward is off',
    inject: { a: 'echo 0 >/proc/sys/net/ipv4/ip_forward' },
    heal: { a: 'echo 1 >/proc/sys/net/ipv4/ip_forward' },
    ...{ at: 'a', where: 'this host', faults: ['ip-forward', 'forwarding'] },
  },
  {
    name: 'the tunnel’s device forwards nothing',
    inject: { a: 'echo 0 >/proc/sys/net/ipv4/conf/flannel0/forwarding' },
    heal: { a: 'echo 1 >/proc/sys/net/ipv4/conf/flannel0/forwarding' },
    ...{ at: 'a', where: 'this host', faults: ['forwarding'] },
  },
  {
    name: 'the bridge of containers is down',
    inject: { a: 'ip link set cni0 down' },
    heal: { a: 'ip link set cni0 up' },
    ...{ at: 'a', where: 'this host', faults: ['bridge'] },
  },
  {
    name: 'the bridge has the address of another subnet',
    inject: { a: 'ip address delete A_GW/24 dev cni0; ip address add 10.99.0.1/24 dev cni0' },
    heal: { a: 'ip address delete 10.99.0.1/24 dev cni0; ip address add A_GW/24 dev cni0' },
    ...{ at: 'a', where: 'this host', faults: ['bridge', 'bridge-address'] },
  },
  {
    name: 'containers with a longer MTU than the overlay’s',
    inject: {
      a: 'for d in /sys/class/net/cni0/brif/*; do ip link set $(basename $d) mtu 1500; done; ip link set cni0 mtu 1500',
    },
    heal: {
      a: 'for d in /sys/class/net/cni0/brif/*; do ip link set $(basename $d) mtu 1472; done; ip link set cni0 mtu 1472',
    },
    ...{ at: 'a', where: 'this host', faults: ['bridge'] },
  },
  {
    name: 'an underlay interface with a lower MTU than before',
    inject: { a: 'ip link set eth0 mtu 1400' },
    heal: { a: 'ip link set eth0 mtu 1500' },
    ...{ at: 'a', where: 'this host', faults: ['mtu', 'bridge'] },
  },
  {
    name: 'subnet.env is gone',
    inject: { a: 'kill -STOP AGENT; mv STATE/subnet.env STATE/away.env' },
    heal: { a: 'mv STATE/away.env STATE/subnet.env; kill -CONT AGENT' },
    ...{ at: 'a', where: 'this host', faults: ['subnet-env'] },
  },
  {
    name: 'the agent hangs',
    inject: { b: 'kill -STOP AGENT' },
    heal: { b: 'kill -CONT AGENT' },
    ...{ at: 'b', where: 'this host', faults: ['agent'] },
  },
  {
    name: 'the agent of a peer hangs',
    inject: { b: 'kill -STOP AGENT' },
    heal: { b: 'kill -CONT AGENT' },
    ...{ at: 'a', where: 'b', faults: ['tunnel-blocked'] },
  },
  {
    name: 'an IPsec policy that blocks a peer',
    inject: { a: 'ip xfrm policy add src A_IP dst B_IP dir out action block' },
    heal: { a: 'ip xfrm policy delete src A_IP dst B_IP dir out' },
    ...{ at: 'a', where: 'this host', faults: ['ipsec'] },
  },
  {
    name: 'an unknown host that sends tunnel datagrams',
    inject: {
      c: 'ip address add 192.168.77.99/24 dev eth0; head -c 60 /dev/zero | socat -u STDIN UDP4-SENDTO:A_IP:8285,bind=192.168.77.99; ip address delete 192.168.77.99/24 dev eth0',
    },
    heal: {},
    ...{ at: 'a', where: 'this host', faults: ['refused-senders'] },
  },
  {
    name: 'a queue that overflows',
    inject: {
      a: `kill -STOP AGENT; ip netns exec CONTAINER ${process.execPath} --disable-warning=ExperimentalWarning ${DATAGRAM_SENDER} B_GW 7777 4000 100 0`,
    },
    heal: { a: 'kill -CONT AGENT' },
    ...{ at: 'a', where: 'this host', faults: ['queue-drops'] },
  },
  {
    name: 'another program’s better route to a peer’s subnet',
    inject: { a: 'ip route add B_NET via 192.168.77.254 dev eth0' },
    heal: { a: 'ip route delete B_NET via 192.168.77.254 dev eth0' },
    ...{ at: 'a', where: 'this host', faults: ['routes-in-use'] },
  },
  {
    name: 'a blackhole route for a peer’s subnet',
    inject: { a: 'ip route add blackhole B_NET' },
    heal: { a: 'ip route delete blackhole B_NET' },
    ...{ at: 'a', where: 'this host', faults: ['routes-in-use'] },
  },
  {
    name: 'a rule that sends packets to a peer to another table',
    inject: { a: 'ip route add default via 192.168.77.254 table 100; ip rule add to B_NET lookup 100 priority 50' },
    heal: { a: 'ip rule delete priority 50; ip route delete default table 100' },
    ...{ at: 'a', where: 'this host', faults: ['routes-in-use'] },
  },
  {
    name: 'a route that is deleted, and that the agent restores',
    inject: { a: 'ip route delete 10.244.0.0/16 dev flannel0' },
    heal: {},
    ...{ at: 'a', where: 'this host', faults: ['repairs', 'kernel-state'] },
  },
  {
    name: 'hosts that ignore pings to their own addresses: no fault',
    inject: { b: nft('inet', 'input', 'ip daddr B_IP icmp type echo-request drop') },
    heal: { b: unbroken('inet') },
    ...{ at: 'a', where: undefined, faults: [] },
  },
  {
    name: 'a firewall that drops packets to closed ports: no fault',
    inject: { b: nft('inet', 'input', 'udp dport 33434-33534 drop') },
    heal: { b: unbroken('inet') },
    ...{ at: 'a', where: undefined, faults: [] },
  },
];
