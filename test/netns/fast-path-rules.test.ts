import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { startAgent } from '../../src/lab/agent.ts';
import { sendFile } from '../../src/lab/checks.ts';
import type { LabContainer, LabHost } from '../../src/lab/topology.ts';
import { address, udpPacket } from '../fakes/packets.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { PORT } from './tunnel.ts';
import { eventually, eventuallyHolds } from './waiting.ts';

const signal = new AbortController().signal;
const BYTES = 8 * 1024 * 1024;
/** Fewer acknowledged bytes in that time than a black hole lets through. */
const STUCK_MS = 20_000;
/** Pings in a row, each of which waits for a second: none passes any more. */
const ROUNDS = 5;
/** Forged datagrams that have arrived before anything else is tried. */
const FORGED = 20;

const DROP = ['-p', 'udp', '--dport', `${PORT}`, '-j', 'DROP'];

// Most of it is waiting until what is known has run out.
describe('what a host’s rules say about the tunnel’s datagrams', { concurrency: true }, () => {
  for (const underlay of ['native', 'wire'] as const) {
    describe(`on a ${underlay} underlay`, { concurrency: 1 }, () => {
      let overlay: Overlay;
      let hosts: readonly [LabHost, LabHost];
      let containers: readonly [LabContainer, LabContainer];

      before(async () => {
        const agentFlags = ['--fast-path=auto'];
        overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, underlay, agentFlags }, signal);
        hosts = overlay.topology.hosts as [LabHost, LabHost];
        containers = overlay.topology.containers as [LabContainer, LabContainer];
        await eventually('the fast path is open', async () => {
          const logs = await Promise.all(hosts.map((host) => overlay.log(host)));
          return logs.every((log) => log.includes('Packets take the fast path')) || undefined;
        });
      });
      after(() => overlay?.[Symbol.asyncDispose]());

      const iptables = async (host: LabHost, ...words: readonly string[]): Promise<void> => {
        await overlay.topology.exec(host, ['iptables', '-w', ...words]);
      };
      const pings = async (): Promise<boolean> =>
        (await ping(overlay.topology, containers[0], addressOf(containers[1]), '-W', '1')).ok;
      /** A file gets through one way; a transfer that hangs is cut off. */
      const transfers = async (): Promise<void> => {
        const sent = await sendFile(
          overlay.topology,
          containers[0],
          containers[1],
          BYTES,
          AbortSignal.timeout(STUCK_MS),
        );
        assert.equal(sent.receivedSha256, sent.sha256);
      };

      for (const { what, rules } of [
        {
          what: 'INPUT of both drops them',
          rules: [
            [0, 'INPUT'],
            [1, 'INPUT'],
          ],
        },
        { what: 'INPUT of the receiver drops them', rules: [[1, 'INPUT']] },
        { what: 'OUTPUT of the sender drops them', rules: [[0, 'OUTPUT']] },
        { what: 'PREROUTING of table raw of the receiver drops them', rules: [[1, 'PREROUTING', '-t', 'raw']] },
      ] as const) {
        it(`${what}: nothing passes, large or small, and all does when the rule is gone`, async () => {
          await eventually('pings pass', async () => (await pings()) || undefined);
          await transfers();
          for (const [host, chain, ...table] of rules) await iptables(hosts[host], ...table, '-I', chain, ...DROP);
          await eventuallyHolds(async () => {
            for (let round = 0; round < ROUNDS; round++) assert.equal(await pings(), false);
          });
          for (const [host, chain, ...table] of rules) await iptables(hosts[host], ...table, '-D', chain, ...DROP);
          await eventually('pings pass', async () => (await pings()) || undefined);
          await transfers();
        });
      }
    });
  }
});

describe('who forges the address of a peer that has no fast path', () => {
  let overlay: Overlay;
  let hosts: readonly [LabHost, LabHost, LabHost];

  before(async () => {
    const agentFlags = ['--fast-path=auto'];
    overlay = await Overlay.create({ hosts: 3, containersPerHost: 1, underlay: 'native', agentFlags }, signal);
    hosts = overlay.topology.hosts as [LabHost, LabHost, LabHost];
    const plain = overlay.agents[1]!;
    plain.child.kill('SIGTERM');
    await plain.child.exited;
    const { topology, store } = overlay;
    overlay.agents[1] = await startAgent(topology, hosts[1], store, { extraFlags: ['--fast-path=off'] }, signal);
  });
  after(() => overlay?.[Symbol.asyncDispose]());

  for (const { what, mark, payload } of [
    { what: '20 zero bytes', mark: () => 0x5780, payload: () => new Uint8Array(20) },
    { what: 'datagrams of seven bytes', mark: () => 0x5780, payload: () => new Uint8Array(7) },
    {
      what: 'packets of its containers, every identification in turn',
      mark: (round: number) => round * 257,
      payload: inner,
    },
  ]) {
    it(`does not stop TCP to it, with ${what}`, async () => {
      const [a, b, forger] = hosts;
      const target = `IP4-SENDTO:${formatIpv4(a.address)}:255`;
      await using stack = new AsyncDisposableStack();
      const datagrams = Array.from({ length: 50 }, (_, round) =>
        udpPacket({
          ip: { source: b.address, destination: a.address, id: mark(round) & 0xffff, dontFragment: true },
          ...{ sourcePort: PORT, destinationPort: PORT, withoutChecksum: true, payload: payload() },
        }),
      );
      // socat makes a datagram of what it reads at once.
      const files = datagrams.map((bytes, round) => {
        const path = join(forger.stateDirectory, `forged-${round}`);
        writeFileSync(path, bytes);
        return path;
      });
      // Told to end, socat ends, and the loop with the pipe between them.
      const loop = `while :; do for each in ${files.join(' ')}; do cat $each || exit; sleep 0.02; done; done`;
      const forging = ['bash', '-c', `exec socat -u STDIN ${target} < <(${loop})`];
      stack.use(await overlay.topology.start(forger, forging, { stdout: 'ignore' }));
      const received = async (): Promise<number> => {
        const { stdout } = await overlay.topology.exec(a, ['cat', '/sys/class/net/eth0/statistics/rx_packets']);
        return Number(stdout);
      };
      const before = await received();
      await eventually('forged datagrams arrive', async () => (await received()) >= before + FORGED || undefined);
      const [from, to] = [a.containers[0]!, b.containers[0]!];
      for (let round = 0; round < 2; round++) {
        const sent = await sendFile(overlay.topology, from, to, BYTES, AbortSignal.timeout(STUCK_MS));
        assert.equal(sent.receivedSha256, sent.sha256);
      }
    });
  }

  function inner(): Uint8Array {
    const containers = overlay.topology.containers;
    const ip = { source: address(addressOf(containers[1]!)), destination: address(addressOf(containers[0]!)) };
    return udpPacket({ ip, sourcePort: 1, destinationPort: 2 });
  }
});
