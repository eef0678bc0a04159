import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { LAYOUT } from '../../src/dataplane/fast-path/layout.ts';
import type { LabHost, Place } from '../../src/lab/topology.ts';
import { payloadOf } from '../fakes/packets.ts';
import { address6, udp6Packet } from '../fakes/packets6.ts';
import { folderOnBpffs } from '../netns/bpffs.ts';
import { Ipv6Hosts } from '../netns/ipv6-hosts.ts';
import { ping } from '../netns/overlay.ts';
import { Pinging } from '../netns/pinging.ts';
import {
  addressIn,
  carriedByFastPath,
  everyFamilyAnswers,
  neighbourComesBack,
  type StackedContainer,
  transferStacked,
} from '../netns/stacked-overlay.ts';
import { eventually, eventuallyHolds, LineFeed } from '../netns/waiting.ts';

const FILE_BYTES = 8 * 1024 * 1024;
const PORT = 8285;
const LISTENER_PORT = 7_000;
/** `UDP_NO_CHECK6_TX`, of SOL_UDP: datagrams as a fast path sends them. */
const WITHOUT_CHECKSUM = 'setsockopt-int=17:101:1';

/** Of a namespace’s UDP over IPv6: what was refused for its checksum. */
async function checksumErrors({ topology }: Ipv6Hosts, place: Place): Promise<number> {
  const { stdout } = await topology.exec(place, ['nstat', '-asz', 'Udp6InCsumErrors']);
  const count = /Udp6InCsumErrors +(\d+)/.exec(stdout)?.[1];
  assert.ok(count !== undefined, stdout);
  return Number(count);
}

/**
 * Counts datagrams of the tunnel without a checksum, that contain IPv6 (signs have none either), from one host to another: on the switch
 * between them, because the fast path takes them before the other host could count.
 */
async function unsummed(hosts: Ipv6Hosts, from: LabHost, to: LabHost): Promise<() => Promise<number>> {
  const { topology } = hosts;
  const { switchNamespace } = topology.plan;
  const table = `probe${to.index}`;
  const rule = `ip6 daddr ${hosts.addressOf(to)} udp dport ${PORT} udp checksum 0 @th,64,8 & 0xf0 == 0x60 counter`;
  const chain = `type filter hook ingress device "${from.switchPort}" priority 0;`;
  await topology.exec(switchNamespace, ['nft', `table netdev ${table} {\nchain in {\n${chain}\n${rule}\n}\n}`]);
  return async () => {
    const { stdout } = await topology.exec(switchNamespace, ['nft', 'list', 'table', 'netdev', table]);
    return Number(/counter packets (\d+)/.exec(stdout)?.[1]);
  };
}

/** Two hosts with the fast path, and one without. */
describe('udp between hosts that have IPv6 alone', () => {
  let hosts: Ipv6Hosts;
  let one: StackedContainer;
  let other: StackedContainer;
  let slow: StackedContainer;

  before(async () => {
    hosts = await Ipv6Hosts.create('native', [['--iptables-resync=1'], [], ['--fast-path=off']]);
    [one, other, slow] = hosts.containers as [StackedContainer, StackedContainer, StackedContainer];
    await everyFamilyAnswers(hosts.topology, hosts.containers);
  });
  after(() => hosts?.[Symbol.asyncDispose]());

  it('the agent says in its log that packets take the fast path', async () => {
    await hosts.agents[0]!.logged(/^Packets take the fast path in the kernel through eth0, /);
  });

  it('TCP: files arrive whole, both ways, past the forwarders', async () => {
    // A forwarder that carried the file would read some hundred super-packets, and receive as many messages.
    await carriedByFastPath(hosts.topology, hosts.agents, [one, other], 6, {
      bytes: FILE_BYTES,
      limits: { txReads: 60, rxReceives: 60 },
    });
  });

  it('weft status says which path is in use to whom', async () => {
    await eventuallyHolds(async () => {
      assert.deepEqual(await hosts.pathsFrom(one.host), {
        'fd10:0:0:2::/64': 'fast-path',
        'fd10:0:0:3::/64': 'forwarder',
      });
    });
  });

  it('TCP with a host that has no fast path: files arrive whole, both ways', async () => {
    await transferStacked(hosts.topology, [one, slow], 6, FILE_BYTES);
    await transferStacked(hosts.topology, [slow, one], 6, FILE_BYTES);
  });

  for (const [what, to] of [
    ['by the fast path', () => other],
    ['with a host that has none', () => slow],
  ] as const) {
    it(`UDP ${what}: datagrams come back, also those that are sent in fragments`, async () => {
      const { topology } = hosts;
      await using _echo = await topology.start(to().namespace, ['socat', `UDP6-LISTEN:${LISTENER_PORT},fork`, 'PIPE']);
      const target = `UDP6:[${addressIn(6, to())}]:${LISTENER_PORT}`;
      for (const length of [1, 1_000, 4_000]) {
        const text = Buffer.from(payloadOf(length)).toString('hex').slice(0, length);
        await eventually(`${length} bytes come back`, async () => {
          const argv = ['socat', '-t', '1', '-b', '8192', 'STDIO', target];
          const { stdout } = await topology.exec(one.namespace, argv, { stdin: text, okExitCodes: 'any' });
          return stdout === text || undefined;
        });
      }
    });
  }

  it('leaves all to the forwarders when the network between the hosts drops datagrams without a checksum', async () => {
    const { topology } = hosts;
    const { switchNamespace } = topology.plan;
    const rule = `ether type ip6 udp dport ${PORT} udp checksum 0 counter drop`;
    const table = `table bridge probe {\nchain forward {\ntype filter hook forward priority 0;\n${rule}\n}\n}`;
    await topology.exec(switchNamespace, ['nft', table]);
    try {
      await eventuallyHolds(async () => {
        const { ok, output } = await ping(topology, one, addressIn(6, other), '-c', '20', '-i', '0.01');
        assert.ok(ok && output.includes(' 0% packet loss'), output);
        assert.equal((await hosts.pathsFrom(one.host))['fd10:0:0:2::/64'], 'forwarder');
      });
      await transferStacked(topology, [one, other], 6, FILE_BYTES / 8);
      const { stdout } = await topology.exec(switchNamespace, ['nft', 'list', 'table', 'bridge', 'probe']);
      assert.match(stdout, /counter packets [1-9]/);
    } finally {
      await topology.exec(switchNamespace, ['nft', 'delete', 'table', 'bridge', 'probe']);
    }
  });

  it('refuses datagrams from a host that is no peer, and packets in the name of another host’s containers', async () => {
    const { topology } = hosts;
    const stranger = 'fd77::99';
    await topology.ipBatch(slow.host, `addr add ${stranger}/64 dev eth0 nodad\n`);
    const listener = await topology.start(one.namespace, ['socat', '-u', `UDP6-RECV:${LISTENER_PORT + 1}`, 'STDOUT']);
    const arrivals = new LineFeed(listener.stdout!);
    await eventually('the listener is there', async () => {
      const { stdout } = await topology.exec(one.namespace, ['ss', '-Huln', `sport = :${LISTENER_PORT + 1}`]);
      return stdout !== '' || undefined;
    });
    const send = async (from: string, source: StackedContainer, text: string): Promise<void> => {
      const packet = udp6Packet({
        ip: { source: address6(addressIn(6, source)), destination: address6(addressIn(6, one)) },
        ...{ sourcePort: 5_000, destinationPort: LISTENER_PORT + 1, payload: Buffer.from(`${text}\n`) },
      });
      const target = `UDP6-SENDTO:[${hosts.addressOf(one.host)}]:${PORT},bind=[${from}],${WITHOUT_CHECKSUM}`;
      await topology.exec(slow.host, ['socat', '-u', 'STDIN', target], { stdin: packet });
    };
    await send(stranger, slow, 'from a host that is no peer');
    await send(stranger, other, 'from a host that is no peer, as a container of one');
    await send(hosts.addressOf(slow.host), other, 'as another host’s container');
    await send(hosts.addressOf(slow.host), one, 'as a container of the receiver');
    await send(hosts.addressOf(slow.host), slow, 'as its own container');
    await arrivals.find((text) => text === 'as its own container');
    assert.deepEqual(
      arrivals.seen.map(({ text }) => text),
      ['as its own container'],
    );
  });

  it('a firewall that drops forwarded packets of IPv6 is named in the log, and the remedy there helps', async () => {
    const { topology } = hosts;
    const agent = hosts.agents[one.host.index]!;
    const from = agent.log.mark;
    const sh = (command: string) => topology.exec(one.host, ['sh', '-c', command]);
    const reaches = async (): Promise<boolean> => (await ping(topology, one, addressIn(6, slow), '-W', '1')).ok;
    await eventually('pings pass', async () => (await reaches()) || undefined);
    await sh("nft 'table inet guard { chain forward { type filter hook forward priority 0; policy drop; }; }'");
    try {
      const line = await agent.logged(/drops packets of containers, chain forward of table inet guard/, from);
      assert.equal(await reaches(), false);
      const commands = Array.from(line.matchAll(/nft insert rule [^;]* accept/g), ([command]) => command);
      assert.equal(commands.length, 2, line);
      for (const command of commands) await sh(command);
      await eventually('pings pass', async () => (await reaches()) || undefined);
      await agent.logged(/chain forward of table inet guard no longer drops packets of containers/, from);
    } finally {
      await sh('nft delete table inet guard');
    }
  });

  it('is closed while the host does not forward IPv6, says so with the remedy, and opens again by itself', async () => {
    const { topology } = hosts;
    const agent = hosts.agents[one.host.index]!;
    const from = agent.log.mark;
    const forward = async (value: 0 | 1): Promise<void> => {
      await topology.exec(one.host, ['sysctl', '-q', '-w', `net.ipv6.conf.all.forwarding=${value}`]);
    };
    await forward(0);
    try {
      const remedy = 'sysctl -w net\\.ipv6\\.conf\\.all\\.forwarding=1';
      await agent.logged(
        new RegExp(`^All packets pass through the forwarder: .* does not forward IPv6.*${remedy}`),
        from,
      );
      await agent.logged(new RegExp(`^net\\.ipv6\\.conf\\.all\\.forwarding is 0: .*${remedy}`), from);
      const { body } = await agent.get('/metrics');
      assert.match(body, /^weft_fast_path_obstacle\{reason="ipv6-forwarding"\} 1$/m);
      const { problems } = await hosts.statusOf(one.host);
      const texts = problems.map(({ text, remedy }) => `${text} → ${remedy}`).join('\n');
      for (const words of ['no fast path (ipv6-forwarding)', 'net.ipv6.conf.all.forwarding is 0'])
        assert.ok(texts.includes(words), texts);
    } finally {
      await forward(1);
    }
    await agent.logged(/^Packets take the fast path in the kernel /, from);
    await agent.logged(/^net\.ipv6\.conf\.all\.forwarding is on again$/, from);
    await eventuallyHolds(async () => {
      const { ok, output } = await ping(topology, one, addressIn(6, other));
      assert.ok(ok, output);
      assert.equal((await hosts.pathsFrom(one.host))['fd10:0:0:2::/64'], 'fast-path');
    });
  });
});

for (const [way, flags, limits] of [
  // The way in is the forwarder’s: it is given joined datagrams, some hundred of 5,700.
  ['out', [], { txReads: 60, rxReceives: 2_000 }],
  ['out and, by XDP, in', ['--fast-path-in=xdp'], { txReads: 60, rxReceives: 60 }],
] as const) {
  describe(`the fast path ${way} between hosts that have IPv6 alone, where datagrams are cut`, () => {
    let hosts: Ipv6Hosts;

    before(async () => {
      hosts = await Ipv6Hosts.create('wire', [flags, flags, ['--fast-path=off']]);
    });
    after(() => hosts?.[Symbol.asyncDispose]());

    it('carries TCP past the forwarders, both ways, in datagrams that every socket takes', async () => {
      const [one, other] = hosts.containers as [StackedContainer, StackedContainer];
      await carriedByFastPath(hosts.topology, hosts.agents.slice(0, 2), [one, other], 6, { bytes: FILE_BYTES, limits });
      // Single ones have no checksum.
      const { ok, output } = await ping(hosts.topology, one, addressIn(6, other));
      assert.ok(ok && output.includes('ttl=60'), output);
      for (const place of [...hosts.topology.hosts, one.namespace, other.namespace]) {
        assert.equal(await checksumErrors(hosts, place), 0);
      }
    });

    it('sends a host that has not answered no packet without a checksum', async () => {
      const [one, other, slow] = hosts.containers as [StackedContainer, StackedContainer, StackedContainer];
      const toOther = await unsummed(hosts, one.host, other.host);
      const toSlow = await unsummed(hosts, one.host, slow.host);
      await transferStacked(hosts.topology, [one, slow], 6, FILE_BYTES / 8);
      await transferStacked(hosts.topology, [slow, one], 6, FILE_BYTES / 8);
      await eventuallyHolds(async () => {
        const { ok, output } = await ping(hosts.topology, one, addressIn(6, other), '-c', '20', '-i', '0.01');
        assert.ok(ok, output);
        assert.ok((await toOther()) > 0, 'none to the host that has answered either');
      });
      assert.equal(await toSlow(), 0);
    });
  });
}

/** Behind the device of `switch` super-packets are cut, so that those of TCP are the forwarder’s while there is one. */
for (const underlay of ['native', 'wire', 'switch'] as const) {
  it(`IPv6 between hosts: packets pass while no agent runs, and agents take over from each other (${underlay})`, async () => {
    await using stack = new AsyncDisposableStack();
    const root = await folderOnBpffs(stack);
    const flags = [`--fast-path-dir=${root}`];
    const hosts = stack.use(await Ipv6Hosts.create(underlay, [flags, flags]));
    const { topology } = hosts;
    const [one, other] = hosts.containers as [StackedContainer, StackedContainer];
    await everyFamilyAnswers(topology, hosts.containers);
    const agreed = async (): Promise<void> => {
      for (const [index, other] of [
        [0, 2],
        [1, 1],
      ] as const) {
        const host = topology.hosts[index]!;
        await eventuallyHolds(async () => {
          await ping(topology, hosts.containers[index]!, addressIn(6, hosts.containers[other - 1]!));
          assert.deepEqual(await hosts.pathsFrom(host), { [`fd10:0:0:${other}::/64`]: 'fast-path' });
        });
      }
    };
    await agreed();
    if (underlay !== 'switch') {
      await carriedByFastPath(topology, hosts.agents, [one, other], 6, { bytes: FILE_BYTES, limits: { txReads: 60 } });
    }
    for (const name of await readdir(root)) {
      const layouts = (await readdir(join(root, name))).filter((each) => each.startsWith('layout-'));
      assert.deepEqual(layouts, [`layout-${LAYOUT}-ipv6`]);
    }
    const kill = async (): Promise<void> => {
      for (const { child } of hosts.agents) {
        child.kill('SIGKILL');
        await child.exited;
      }
    };
    {
      await using flood = await Pinging.start(topology, one.namespace, addressIn(6, other), 0.005);
      await flood.answered(100);
      await kill();
      await flood.answered(200);
      for (const host of topology.hosts) await hosts.startAgent(host, flags);
      await flood.answered(200);
      const { lost, of } = await flood.lost();
      assert.equal(lost, 0, `${lost} of ${of}`);
    }

    await agreed();
    await kill();
    await transferStacked(topology, [one, other], 6, FILE_BYTES);
    await transferStacked(topology, [other, one], 6, FILE_BYTES);
    await neighbourComesBack(topology, [one, other], 6, hosts.addressOf(topology.hosts[1]!));
  });
}
