import { after, before, describe, it } from 'node:test';
import { Bed, type Fault } from './bed.ts';

/** A table of nft with one chain, by hook; the rule is what breaks. `netdev` chains are of eth0. */
const nft = (family: 'inet' | 'netdev', hook: string, rule: string): string =>
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
const unbroken = (family: 'inet' | 'netdev'): string => `nft delete table ${family} broken`;
const tunnel = 'udp dport 8285';

const FAULTS: readonly Fault[] = [
  {
    name: 'a silent middlebox: long packets vanish before a peer',
    inject: { b: nft('netdev', 'ingress', 'meta length > 1314 drop') },
    heal: { b: unbroken('netdev') },
    ...{ at: 'a', where: 'b', faults: ['mtu-blackhole'] },
  },
  {
    name: 'checksums that a device of this host spoils',
    inject: {
      a: nft('netdev', 'egress', `ip daddr B_IP ${tunnel} @th,136,8 17 @th,272,16 != 0 @th,272,16 set 0xdead`),
    },
    heal: { a: unbroken('netdev') },
    ...{ at: 'a', where: 'b', faults: ['checksum-offload'] },
  },
  {
    name: 'an iptables FORWARD that drops',
    inject: { a: 'iptables-legacy -P FORWARD DROP' },
    heal: { a: 'iptables-legacy -P FORWARD ACCEPT' },
    ...{ at: 'a', where: 'this host', faults: ['forward-drops'] },
  },
  {
    name: 'a firewall of the peer that lets nothing in',
    inject: { b: nft('inet', 'input', `ip saddr A_IP ${tunnel} drop`) },
    heal: { b: unbroken('inet') },
    ...{ at: 'a', where: 'b', faults: ['one-way'] },
  },
  {
    name: 'a firewall of this host that lets nothing out',
    inject: { a: nft('inet', 'output', `ip daddr B_IP ${tunnel} drop`) },
    heal: { a: unbroken('inet') },
    ...{ at: 'a', where: 'b', faults: ['one-way'] },
  },
  {
    name: 'a peer whose cable is out',
    inject: { switch: 'ip link set B_PORT down' },
    heal: { switch: 'ip link set B_PORT up' },
    ...{ at: 'a', where: 'b', faults: ['peer-unreachable'] },
  },
  {
    name: 'ip_forward is off',
    inject: { a: 'echo 0 >/proc/sys/net/ipv4/ip_forward' },
    heal: { a: 'echo 1 >/proc/sys/net/ipv4/ip_forward' },
    ...{ at: 'a', where: 'this host', faults: ['ip-forward', 'forwarding'] },
  },
  {
    name: 'the bridge of containers is down',
    inject: { a: 'ip link set cni0 down' },
    heal: { a: 'ip link set cni0 up' },
    ...{ at: 'a', where: 'this host', faults: ['bridge'] },
  },
  {
    name: 'the agent hangs',
    inject: { b: 'kill -STOP AGENT' },
    heal: { b: 'kill -CONT AGENT' },
    ...{ at: 'b', where: 'this host', faults: ['agent'] },
  },
  {
    name: 'a better route of somebody else to a peer’s subnet',
    inject: { a: 'ip route add B_NET via 192.168.77.254 dev eth0' },
    heal: { a: 'ip route delete B_NET via 192.168.77.254 dev eth0' },
    ...{ at: 'a', where: 'this host', faults: ['routes-in-use'] },
  },
  {
    name: 'hosts that answer no echo beside the overlay: no fault',
    inject: { b: nft('inet', 'input', 'ip daddr B_IP icmp type echo-request drop') },
    heal: { b: unbroken('inet') },
    ...{ at: 'a', where: undefined, faults: [] },
  },
  {
    name: 'a firewall that drops closed ports: no fault',
    inject: { b: nft('inet', 'input', 'udp dport 33434-33534 drop') },
    heal: { b: unbroken('inet') },
    ...{ at: 'a', where: undefined, faults: [] },
  },
];

describe('weft test with the backend udp', () => {
  let bed: Bed;
  before(async () => {
    bed = await Bed.create('udp', AbortSignal.timeout(1_200_000));
  });
  after(() => bed?.[Symbol.asyncDispose]());

  it('finds nothing wrong where nothing is, on any host', async () => {
    for (const name of ['a', 'b', 'c'] as const) await bed.healthy(name);
  });

  for (const fault of FAULTS) it(`names ${fault.name}`, () => bed.prove(fault));
});
