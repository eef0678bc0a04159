import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { untilFastPathCarries } from './fast-path-use.ts';
import { Flanneld } from './flanneld.ts';
import { ping } from './overlay.ts';
import { eventually, eventuallyHolds } from './waiting.ts';

export const NETWORKS = {
  IPv4: { Network: '10.244.0.0/16' },
  'dual stack': { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd10::/48' },
} as const;
/** Several overlays start at once, beside whatever else the machine does. */
const START_MS = 150_000;

export type Stack = keyof typeof NETWORKS;
export type Rules = 'iptables' | 'nftables';

/** A container with its addresses, one for each family of the network. */
export interface StackedContainer {
  readonly namespace: string;
  readonly host: LabHost;
  readonly addresses: readonly string[];
  /** FLANNEL_MTU of its host. */
  readonly mtuBytes: number;
}

/** Two hosts with both families, a real agent each, and a container each in the families of the network. */
export class StackedOverlay implements AsyncDisposable {
  readonly topology: Topology;
  readonly containers: readonly StackedContainer[];

  private constructor(topology: Topology, containers: readonly StackedContainer[]) {
    this.topology = topology;
    this.containers = containers;
  }

  /** @param backend of net-conf.json, given a folder for its files. */
  static async create(
    stack: Stack,
    rules: Rules,
    backend: (folder: string) => object,
    signal: AbortSignal,
  ): Promise<StackedOverlay> {
    await using resources = new AsyncDisposableStack();
    const topology = resources.use(await Topology.create({ hosts: 2, containersPerHost: 1, purpose: 'test' }, signal));
    const own = { EnableNFTables: rules === 'nftables', Backend: backend(topology.stateDirectory) };
    const store = await openSubnetStore('local', topology, JSON.stringify({ ...NETWORKS[stack], ...own }), signal);
    const containers = await Promise.all(
      topology.hosts.map(async (host) => {
        await topology.ipBatch(host, `addr add fd77::${host.index + 1}/64 dev eth0 nodad\n`, signal);
        await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1'], { signal });
        const agent = await Flanneld.start(topology, host, {
          flags: [...store.agentFlags(host), '--iface=eth0', '--ip-masq'],
          env: { NODE_COMPILE_CACHE: join(topology.registryDirectory, 'compile-cache') },
        });
        await agent.logged(/^flannel is ready$/, 0, START_MS);
        return await attachStacked(topology, host, signal);
      }),
    );
    resources.move();
    return new StackedOverlay(topology, containers);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.topology[Symbol.asyncDispose]();
  }
}

/** cni0 and the host's first container behind it, as the CNI bridge plugin makes them from subnet.env. */
export async function attachStacked(topology: Topology, host: LabHost, signal: AbortSignal): Promise<StackedContainer> {
  const { namespace, hostDevice } = host.containers[0]!;
  const text = readFileSync(join(host.stateDirectory, 'subnet.env'), 'utf8');
  const mtuBytes = Number(/^FLANNEL_MTU=(\d+)$/m.exec(text)?.[1]);
  const gateways = [...text.matchAll(/^FLANNEL_(?:IPV6_)?SUBNET=(.+)\/(\d+)$/gm)].map(([, address, length]) => ({
    address: address!,
    length: length!,
    inside: address!.replace(/1$/, '2'),
    nodad: address!.includes(':') ? ' nodad' : '',
  }));
  const outside = [
    `link add cni0 mtu ${mtuBytes} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
    `link add ${hostDevice} mtu ${mtuBytes} type veth peer name eth0 mtu ${mtuBytes} netns ${namespace}`,
    `link set ${hostDevice} master cni0 up`,
    ...gateways.map(({ address, length, nodad }) => `addr add ${address}/${length} dev cni0${nodad}`),
    'link set cni0 up',
  ];
  await topology.ipBatch(host, `${outside.join('\n')}\n`, signal);
  const inside = [
    'link set lo up',
    ...gateways.map((gateway) => `addr add ${gateway.inside}/${gateway.length} dev eth0${gateway.nodad}`),
    'link set eth0 up',
    ...gateways.map(({ address }) => `route add default via ${address}`),
  ];
  await topology.ipBatch(namespace, `${inside.join('\n')}\n`, signal);
  return { namespace, host, addresses: gateways.map((gateway) => gateway.inside), mtuBytes };
}

/** The backend extension, whose command is a program that sets a route in each family that the peer has. */
export function extensionByRoutes(folder: string): object {
  const add = join(folder, 'add');
  const lines = ['-4 route replace "$SUBNET" via "$PUBLIC_IP"', '-6 route replace "$IPV6SUBNET" via "$PUBLIC_IPV6"'];
  const [v4, v6] = lines.map((line) => `ip ${line}`);
  const script = `#!/bin/sh -e\n[ -z "$SUBNET" ] || ${v4}\n[ -z "$IPV6SUBNET" ] || ${v6}\n`;
  writeFileSync(add, script, { mode: 0o755 });
  return { Type: 'extension', SubnetAddCommand: add };
}

export const addressIn = (family: 4 | 6, { addresses }: StackedContainer): string =>
  addresses.find((address) => address.includes(':') === (family === 6))!;

const TRANSFER_PORT = 7_100;

/** A file of random bytes over TCP; it arrives as it was. */
export async function transferStacked(
  topology: Topology,
  [from, to]: readonly [StackedContainer, StackedContainer],
  family: 4 | 6,
  bytes: number,
): Promise<void> {
  const file = join(topology.stateDirectory, `sent-${family}`);
  await topology.exec(from.namespace, ['sh', '-c', `head -c ${bytes} /dev/urandom >${file}`]);
  const received = `${file}-received`;
  const listen = `TCP${family}-LISTEN:${TRANSFER_PORT},reuseaddr`;
  await using server = await topology.start(to.namespace, ['socat', '-u', listen, `CREATE:${received}`]);
  await eventually('the server listens', async () => {
    const { stdout } = await topology.exec(to.namespace, ['ss', '-Htln', `sport = :${TRANSFER_PORT}`]);
    return stdout !== '' || undefined;
  });
  const target = family === 4 ? addressIn(4, to) : `[${addressIn(6, to)}]`;
  const argv = ['socat', '-u', `FILE:${file}`, `TCP${family}:${target}:${TRANSFER_PORT},connect-timeout=20`];
  await topology.exec(from.namespace, argv, { timeoutMs: 60_000 });
  await server.exited;
  assert.ok(readFileSync(file).equals(readFileSync(received)), 'the file is another one');
}

/** What the forwarder of an agent has done until now, by the name of the operation in `weft_forwarder_operations_total`. */
export async function forwarderOperations(agent: Flanneld): Promise<ReadonlyMap<string, number>> {
  const { body } = await agent.get('/metrics');
  const lines = body.matchAll(/^weft_forwarder_operations_total\{operation="(\w+)"\} (\d+)$/gm);
  return new Map([...lines].map(([, name, count]) => [name!, Number(count)]));
}

/**
 * Files both ways until the fast path carries them: none of those figures of a forwarder has then grown by `limit` or more.
 * @see untilFastPathCarries
 */
export async function carriedByFastPath(
  topology: Topology,
  agents: readonly Flanneld[],
  [one, other]: readonly StackedContainer[],
  family: 4 | 6,
  { bytes, limits }: { readonly bytes: number; readonly limits: Readonly<Record<string, number>> },
): Promise<void> {
  await untilFastPathCarries(
    () => Promise.all(agents.map(forwarderOperations)),
    async () => {
      await transferStacked(topology, [one!, other!], family, bytes);
      await transferStacked(topology, [other!, one!], family, bytes);
    },
    ({ before, after }) => {
      for (const [name, limit] of Object.entries(limits)) {
        const more = after.map((figures, index) => figures.get(name)! - before[index]!.get(name)!);
        assert.ok(
          more.every((count) => count < limit),
          `${name} by ${more.join(' and ')}, not less than ${limit}`,
        );
      }
    },
  );
}

/** Both ways, in packets as long as subnet.env says they may be. */
export async function everyFamilyAnswers(topology: Topology, containers: readonly StackedContainer[]): Promise<void> {
  for (const from of containers) {
    for (const to of containers.filter((other) => other !== from)) {
      assert.equal(to.addresses.length, from.addresses.length);
      for (const address of to.addresses) {
        const headers = address.includes(':') ? 40 + 8 : 20 + 8;
        const fullSize = ['-M', 'do', '-s', String(from.mtuBytes - headers)];
        await eventually(`${address} answers`, async () => {
          const { ok } = await ping(topology, from, address, ...fullSize);
          return ok ? true : undefined;
        });
      }
    }
  }
}

/** The host of that container has flannel's masquerade rules, of this kind alone, in each family. */
export async function masqueradesBy(
  rules: Rules,
  topology: Topology,
  { host, addresses }: Pick<StackedContainer, 'host' | 'addresses'>,
): Promise<void> {
  const read = async (...argv: string[]): Promise<string> => (await topology.exec(host, argv)).stdout;
  for (const address of addresses) {
    const isV6 = address.includes(':');
    const saved = await read(isV6 ? 'ip6tables-save' : 'iptables-save', '-t', 'nat');
    const tables = await read('nft', 'list', 'tables', isV6 ? 'ip6' : 'ip');
    assert.equal(/-A POSTROUTING .*-j FLANNEL-POSTRTG/.test(saved), rules === 'iptables', saved);
    assert.equal(/ flannel-ipv[46]$/m.test(tables), rules === 'nftables', tables);
  }
}

/**
 * Pings from one container to the other reach it, and make the entry true that the first one's host has of its neighbour, whatever
 * becomes of that.
 */
export async function neighbourComesBack(
  topology: Topology,
  [from, to]: readonly [StackedContainer, StackedContainer],
  family: 4 | 6,
  neighbour: string,
): Promise<void> {
  const entry = [neighbour, 'dev', 'eth0'];
  for (const [what, change] of [
    ['an entry that is used is asked for again after some seconds', ['change', ...entry, 'nud', 'stale']],
    [
      'one that has failed, as while the peer is started anew, is asked for by the next packet',
      ['change', ...entry, 'nud', 'failed'],
    ],
    ['one that is gone comes back', ['delete', ...entry]],
  ] as const) {
    await topology.exec(from.host, ['ip', 'neigh', ...change]);
    await eventuallyHolds(async () => {
      const { ok, output } = await ping(topology, from, addressIn(family, to), '-c', '5', '-i', '0.1');
      assert.ok(ok && output.includes(' 0% packet loss'), `${what}: ${output}`);
      const { stdout } = await topology.exec(from.host, ['ip', 'neigh', 'show', ...entry]);
      assert.match(stdout, /REACHABLE/, what);
    });
  }
}
