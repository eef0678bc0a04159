import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { DESTINATION_CHECKS, type DestinationCheck } from '../../src/dataplane/destination-check.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { LabHost, Place } from '../../src/lab/topology.ts';
import { withoutReversePathFilter } from './arrivals.ts';
import { addressOf, Overlay } from './overlay.ts';
import { OVERHEAD, Tunnel } from './tunnel.ts';
import { eventually } from './waiting.ts';

const SERVICE_PORT = 8080;
const NODE_PORT = 30_080;
const METADATA = '169.254.169.254';
const THIRD_PARTY = '203.0.113.7';
const HOSTS_OTHER_ADDRESS = '198.51.100.1';
const HOSTS_LATER_ADDRESS = '198.51.100.2';
const NODE_LOCAL_DNS = '169.254.20.10';
const SERVICE = '10.96.0.10';

/**
 * Three hosts with real agents. Root on the second has put a tunnel of its own into the place of the agent, which sends the first
 * one packets for whomever it likes; the first one can reach more than the second.
 */
describe('root on a peer, who sends a host packets for others', () => {
  let overlay: Overlay;
  let victim: LabHost;
  let attacker: LabHost;
  let third: LabHost;
  let targets: Record<
    string,
    { readonly to: string; readonly port?: number; readonly reached: readonly DestinationCheck[] }
  >;

  async function serve(place: Place, name: string): Promise<void> {
    await overlay.topology.start(place, ['socat', `TCP4-LISTEN:${SERVICE_PORT},fork,reuseaddr`, `SYSTEM:echo ${name}`]);
    await eventually(`${name} serves`, async () => {
      const { stdout } = await overlay.topology.exec(place, ['ss', '-Htln', `sport = :${SERVICE_PORT}`]);
      return stdout !== '' || undefined;
    });
  }

  /** What a service says to a TCP connection of the attacker; '' when there is none. */
  async function connect(to: string, port = SERVICE_PORT): Promise<string> {
    // Its public address: whatever checks sources, that one is the peer's own. A SYN is repeated after a second. A connection whose
    // other end goes in the middle would wait for data for good.
    const address = `TCP4:${to}:${port},bind=${formatIpv4(attacker.address)},connect-timeout=2.5`;
    const { stdout } = await overlay.topology.exec(attacker, ['socat', '-T3', '-u', address, 'STDOUT'], {
      okExitCodes: 'any',
    });
    return stdout.trim();
  }

  async function refusals(): Promise<number> {
    const metrics = await overlay.ask(victim, '/metrics');
    return Number(/^weft_dropped_packets_total\{[^}]*reason="foreign-destination"\} (\d+)$/m.exec(metrics)?.[1] ?? 0);
  }

  async function restartVictim(...flags: string[]): Promise<void> {
    const { child } = overlay.agents[victim.index]!;
    child.kill('SIGTERM');
    await child.exited;
    await overlay.startAgent(victim, AbortSignal.timeout(60_000), flags);
  }

  before(async () => {
    overlay = await Overlay.create({ hosts: 3, containersPerHost: 1 }, AbortSignal.timeout(120_000));
    const { topology } = overlay;
    [victim, attacker, third] = topology.hosts as unknown as [LabHost, LabHost, LabHost];
    for (const host of topology.hosts) await withoutReversePathFilter(topology, host);
    await topology.ipBatch(
      third,
      [METADATA, THIRD_PARTY].map((address) => `address add ${address}/32 dev lo\n`).join(''),
    );
    const own = [HOSTS_OTHER_ADDRESS, NODE_LOCAL_DNS].map((address) => `address add ${address}/32 dev lo\n`);
    const ways = [METADATA, THIRD_PARTY].map((address) => `route add ${address} via ${formatIpv4(third.address)}\n`);
    await topology.ipBatch(victim, [...own, ...ways].join(''));
    const pods = topology.containers.map(addressOf);
    // What kube-proxy does with the address of a service, and with the port of one on the node.
    const toPod = ['-j', 'DNAT', '--to-destination', `${pods[2]}:${SERVICE_PORT}`];
    await topology.exec(victim, ['iptables', '-t', 'nat', '-A', 'PREROUTING', '-d', SERVICE, '-p', 'tcp', ...toPod]);
    const onNode = ['-d', HOSTS_OTHER_ADDRESS, '-p', 'tcp', '--dport', String(NODE_PORT)];
    await topology.exec(victim, ['iptables', '-t', 'nat', '-A', 'PREROUTING', ...onNode, ...toPod]);
    for (const place of [victim, third, ...topology.containers]) await serve(place, place.name);
    targets = {
      'a pod of that host': { to: pods[0]!, reached: ['loose', 'strict', 'off'] },
      'an address of that host': { to: HOSTS_OTHER_ADDRESS, reached: ['loose', 'off'] },
      'a service on a port of that host': { to: HOSTS_OTHER_ADDRESS, port: NODE_PORT, reached: ['loose', 'off'] },
      'a metadata server that it reaches': { to: METADATA, reached: ['off'] },
      'a third party that it reaches': { to: THIRD_PARTY, reached: ['off'] },
      'a pod of another peer': { to: pods[2]!, reached: ['off'] },
      'what listens on a link-local address there': { to: NODE_LOCAL_DNS, reached: ['off'] },
      'the address of a service': { to: SERVICE, reached: ['off'] },
    };

    const { child, network } = overlay.agents[attacker.index]!;
    child.kill('SIGKILL');
    await child.exited;
    const destinations = [...new Set([...Object.values(targets).map(({ to }) => to), HOSTS_LATER_ADDRESS])];
    // Its network is everything, so that it sends whatever it likes; a default route by another way would be in front.
    await topology.ipBatch(attacker, 'route delete default\n');
    await Tunnel.start(topology, attacker, {
      ...{ address: `${formatIpv4(network.subnet.addr)}/0`, mtuBytes: 1500 - OVERHEAD },
      peers: destinations.map((to) => ({ subnet: `${to}/32`, host: victim })),
    });
    await topology.ipBatch(attacker, destinations.map((to) => `route replace ${to} dev flannel0\n`).join(''));
  });
  after(() => overlay?.[Symbol.asyncDispose]());

  for (const fastPath of ['off', 'auto']) {
    for (const mode of DESTINATION_CHECKS) {
      it(`--destination-check=${mode}, --fast-path=${fastPath}: TCP reaches what it may, and nothing else`, async () => {
        await restartVictim(`--destination-check=${mode}`, '--source-check=strict', `--fast-path=${fastPath}`);
        // The addresses of the host are known soon.
        await eventually(
          'the tunnel carries TCP',
          async () => (await connect(targets['a pod of that host']!.to)) || undefined,
        );
        if (mode === 'loose')
          await eventually('addresses are known', async () => (await connect(HOSTS_OTHER_ADDRESS)) || undefined);
        const all = Object.entries(targets);
        // All at once: what is not reached takes its time to say so.
        const found = await Promise.all(
          all.map(async ([what, { to, port }]) => [what, (await connect(to, port)) !== '']),
        );
        const wanted = all.map(([what, { reached }]) => [what, reached.includes(mode)]);
        assert.deepEqual(Object.fromEntries(found), Object.fromEntries(wanted));
        assert.equal((await refusals()) > 0, mode !== 'off', 'refusals are counted');
      });
    }
  }

  it('addresses that come to the host are reached, and those that go are not', async () => {
    await restartVictim();
    await overlay.topology.ipBatch(victim, `address add ${HOSTS_LATER_ADDRESS}/32 dev lo\n`);
    await eventually('it is reached', async () => (await connect(HOSTS_LATER_ADDRESS)) || undefined);
    // Where the kernel sends it then, so that it would be reached without the check.
    await overlay.topology.ipBatch(third, `address add ${HOSTS_LATER_ADDRESS}/32 dev lo\n`);
    await overlay.topology.ipBatch(
      victim,
      `address del ${HOSTS_LATER_ADDRESS}/32 dev lo\nroute add ${HOSTS_LATER_ADDRESS} via ${formatIpv4(third.address)}\n`,
    );
    await eventually('it is refused', async () => (await connect(HOSTS_LATER_ADDRESS)) === '' || undefined);
    assert.equal(await connect(HOSTS_LATER_ADDRESS), '');
  });
});
