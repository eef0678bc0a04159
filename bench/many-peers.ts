/** Packets a second that one agent's data plane sends to random destinations among N peers. */
import { formatIpv4, ipv4Of } from '../src/ip/ipv4.ts';
import { parsePrefix4 } from '../src/ip/prefix.ts';
import { Topology } from '../src/lab/topology.ts';
import { Tunnel } from '../test/netns/tunnel.ts';
import { countUdp, datagramsReceived, LOAD, sendUdp, type UdpKind } from './udp-load.ts';

const OWN_SUBNET = parsePrefix4('10.0.0.0/24')!;
const FIRST_SUBNET = 0x0a010000;
/** An IPv4 packet of the load in each. */
const TUNNELLED: UdpKind = { port: 8285, payloadBytes: 28 + LOAD.payloadBytes };
/** Where the peers are said to be: a network behind the second host, which takes the datagrams and drops them. */
const FIRST_ENDPOINT = 0xac100001; // 172.16.0.1

export interface ManyPeers extends AsyncDisposable {
  /** Thousand datagrams a second that left the host. */
  kpps(seconds: number, signal: AbortSignal): Promise<number>;
}

export async function createManyPeers(peers: number, signal: AbortSignal): Promise<ManyPeers> {
  await using stack = new AsyncDisposableStack();
  const topology = stack.use(
    await Topology.create(
      { hosts: 2, containersPerHost: 1, backToBack: true, purpose: `bench ${peers} peers` },
      signal,
    ),
  );
  const [host, sink] = topology.hosts as [(typeof topology.hosts)[0], (typeof topology.hosts)[0]];
  await topology.exec(sink, ['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/ip_forward'], { signal });
  await topology.ipBatch(host, `route add 172.16.0.0/12 via ${formatIpv4(sink.address)}\n`, signal);
  const list = Array.from({ length: peers }, (_, index) => ({
    host: sink,
    address: formatIpv4(ipv4Of(FIRST_ENDPOINT + index)),
    subnet: `${formatIpv4(ipv4Of(FIRST_SUBNET + index * 256))}/24`,
  }));
  await countUdp(topology, sink, TUNNELLED, signal);
  await Tunnel.start(topology, host, { address: '10.0.0.0/8', peers: list });
  await topology.attachContainers(
    host,
    { subnet: OWN_SUBNET, gateway: ipv4Of(OWN_SUBNET.addr + 1), mtuBytes: 1472 },
    signal,
  );
  const container = host.containers[0]!;
  const received = (): Promise<number> => datagramsReceived(topology, sink, TUNNELLED, signal);
  const held = stack.move();
  return {
    kpps: async (seconds, abort) => {
      const before = await received();
      const to = { first: ipv4Of(FIRST_SUBNET + 2), subnets: peers, hosts: 64 };
      await sendUdp(topology, container, to, seconds, 0, abort);
      return ((await received()) - before) / seconds / 1000;
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}
