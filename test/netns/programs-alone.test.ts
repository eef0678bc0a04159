import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import {
  ENDPOINT_VALUE_BYTES,
  LONG_WAY_UNTIL,
  NEXT_ANSWER,
  TRIAL_PAUSE,
} from '../../src/dataplane/fast-path/layout.ts';
import { decodeSign, encodeSign, SIGN_PAYLOAD_BYTES, type Sign } from '../../src/dataplane/fast-path/sign.ts';
import type { Grant } from '../../src/dataplane/fast-path/sign-exchange.ts';
import { type Ipv4Addr, ipv4Of } from '../../src/ip/ipv4.ts';
import { prefix4 } from '../../src/ip/prefix.ts';
import { attachTcx } from '../../src/linux/bpf.ts';
import { readDeviceIndex } from '../../src/linux/ethtool.ts';
import { address, concat, payloadOf, tcpPacket, udpPacket } from '../fakes/packets.ts';
import {
  ETHERNET,
  NEXT,
  OWN,
  openProgramBench,
  PORT,
  type ProgramBench,
  QUESTION,
  REDIRECTED,
  runProgram,
  TAG,
  TAG_WHOLE,
} from '../fuzz/program-bench.ts';
import { eventually } from './waiting.ts';

const PEER = ipv4Of(address('192.168.77.2'));
const PEER_KEY = Uint8Array.from([192, 168, 77, 2]);
/** Nothing has come from it by the socket. */
const UNHEARD = ipv4Of(address('192.168.77.3'));
/** Nobody knows its MAC address. */
const UNRESOLVED = '192.168.77.4';
const FOREVER = 1n << 62n;
const SECOND = 1_000_000_000n;

function fromSocket(source: Ipv4Addr, payload: Uint8Array, sourcePort = PORT): Uint8Array {
  const ip = { source, destination: OWN, id: 0, dontFragment: true, ttl: 61 };
  return concat(ETHERNET, udpPacket({ ip, sourcePort, destinationPort: PORT, payload }));
}

const question = (sign: Partial<Sign> = {}, source = PEER, port = PORT): Uint8Array =>
  fromSocket(source, encodeSign({ ...QUESTION, ...sign }, source, OWN), port);

const data = (source: string, destination: string): Uint8Array =>
  tcpPacket({
    ip: { source: address(source), destination: address(destination) },
    ...{ sourcePort: 1, destinationPort: 2, payload: payloadOf(100) },
  });

describe('the programs while this host has no agent', () => {
  let bench: ProgramBench;

  before(async () => {
    bench = await openProgramBench(['192.168.77.2', '192.168.77.3']);
    bench.tables.publish({
      ipv4: {
        network: prefix4(ipv4Of(address('10.244.0.0')), 16),
        // The kernel takes what a test packet has in the place of an Ethernet header's type for one: the source's first half.
        own: prefix4(ipv4Of(address('8.0.0.0')), 16),
      },
      ipv6: undefined,
      mtu: 1_472,
      peers: [PEER, UNHEARD, ipv4Of(address(UNRESOLVED))].map((ipv4, index) => ({
        ...{ slot: index + 1, publicAddresses: { ipv4, ipv6: undefined }, port: PORT },
        subnets: { ipv4: prefix4(ipv4Of(address(`10.244.${index + 2}.0`)), 24), ipv6: undefined },
      })),
    });
    bench.grant(PEER);
  });
  after(() => bench?.[Symbol.asyncDispose]());

  /** Returns when the agent ended. */
  const away = (forSeconds = 5n): bigint => {
    const ended = process.hrtime.bigint() - forSeconds * SECOND;
    bench.tables.beat(ended, 0n);
    return ended;
  };
  const back = (): void => bench.tables.beat(FOREVER, 0n);

  function mayAnswer(at: bigint): void {
    const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
    value.setBigUint64(NEXT_ANSWER, at, true);
    bench.tables.maps.endpoints.update(PEER_KEY, new Uint8Array(value.buffer));
  }

  for (const segmentation of ['beyond', 'host'] as const) {
    describe(`segmentation ${segmentation}`, () => {
      it("answers a peer's question as the agent would, with checksums that are right", () => {
        away();
        mayAnswer(0n);
        const { verdict, packet } = runProgram(bench.programs[segmentation], question());
        assert.equal(verdict, REDIRECTED);
        const takes = segmentation === 'beyond';
        const tags = { tag: TAG, tagWhole: TAG_WHOLE };
        const status = { takes, arrives: false, takes6: takes, arrives6: false, takesCut: takes };
        const answer = { nonce: 0n, echo: QUESTION.nonce, ...status, alone: true, ...tags };
        assert.deepEqual(decodeSign(packet.subarray(-SIGN_PAYLOAD_BYTES)), answer);
        const ip = { source: OWN, destination: PEER, id: 0, dontFragment: true, ttl: 64 };
        const payload = encodeSign(answer, OWN, PEER);
        const expected = udpPacket({ ip, sourcePort: PORT, destinationPort: PORT, payload });
        assert.deepEqual(packet.subarray(14), expected);
      });

      it('leaves to the socket what is no question, or not to be answered', () => {
        const program = bench.programs[segmentation];
        const verdictOf = (packet: Uint8Array): number => {
          mayAnswer(0n);
          return runProgram(program, packet).verdict;
        };
        away();
        assert.equal(verdictOf(question()), REDIRECTED);
        assert.equal(verdictOf(question({ nonce: 0n, echo: 5n })), NEXT, 'an answer');
        assert.equal(verdictOf(question({ echo: 5n })), NEXT, 'an answer that asks as well');
        assert.equal(verdictOf(question({}, UNHEARD)), NEXT, 'from whom nothing was taken');
        assert.equal(verdictOf(question({}, ipv4Of(address('192.168.77.9')))), NEXT, 'from a stranger');
        assert.equal(verdictOf(question({}, PEER, 53)), NEXT, 'from another port');
        assert.equal(verdictOf(concat(question(), Uint8Array.of(0))), NEXT, 'with something behind it');
        mayAnswer(FOREVER);
        assert.equal(runProgram(program, question()).verdict, NEXT, 'too soon after another');
        back();
        assert.equal(verdictOf(question()), NEXT, 'while there is an agent');
      });

      it('takes what a socket sent, of whom and for whom it may come', () => {
        const verdictOf = (inner: Uint8Array, source = PEER): number =>
          runProgram(bench.programs[segmentation], fromSocket(source, inner)).verdict;
        const good = data('10.244.2.5', '8.0.1.5');
        away();
        assert.equal(verdictOf(good), REDIRECTED);
        assert.equal(verdictOf(data('10.244.3.5', '8.0.1.5')), NEXT, "another peer's container");
        assert.equal(verdictOf(data('10.244.2.5', '10.244.3.5')), NEXT, 'for another peer');
        assert.equal(verdictOf(data('10.244.3.5', '8.0.1.5'), UNHEARD), NEXT, 'from whom nothing was taken');
        back();
        assert.equal(verdictOf(good), NEXT, 'while there is an agent, which reads the socket');
        away(600n);
        assert.equal(verdictOf(good), NEXT, 'when another program has a socket there since');
      });

      it('sends what it might send when the agent ended, and nothing that was over by then', () => {
        const program = bench.outbound[segmentation];
        const packet = data('8.0.1.5', '10.244.2.5');
        const grant = (until: bigint): Grant => ({
          ...{
            sendUntil: until,
            acceptUntil: until,
            wholeUntil: 0n,
            sendUntil6: until,
            wholeUntil6: 0n,
            takesCutUntil: 0n,
          },
          ...{ tag: 1, tagWhole: 2, expectTag: TAG, expectTagWhole: TAG_WHOLE },
        });
        const ended = away();
        bench.tables.grant(PEER, grant(ended + 1n));
        // Many: none takes the way through the forwarder in between.
        for (let count = 0; count < 5; count++) assert.equal(runProgram(program, packet).verdict, REDIRECTED);
        bench.tables.grant(PEER, grant(ended));
        assert.equal(runProgram(program, packet).verdict, NEXT);
        back();
        bench.tables.grant(PEER, grant(ended + 1n));
        assert.equal(runProgram(program, packet).verdict, NEXT);
        bench.grant(PEER);
      });
    });
  }

  it('leaves no packet to a forwarder that is gone, though the agent was there a moment ago', () => {
    const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
    value.setBigUint64(TRIAL_PAUSE, 1n, true);
    value.setBigUint64(LONG_WAY_UNTIL, FOREVER, true);
    bench.tables.maps.endpoints.update(PEER_KEY, new Uint8Array(value.buffer));
    bench.tables.grant(PEER, {
      ...{
        sendUntil: FOREVER,
        acceptUntil: FOREVER,
        wholeUntil: 0n,
        sendUntil6: 0n,
        wholeUntil6: 0n,
        takesCutUntil: 0n,
      },
      ...{ tag: 1, tagWhole: 2, expectTag: TAG, expectTagWhole: TAG_WHOLE },
    });
    back();
    const behindSuperPacket = (): number => runProgram(bench.outbound.beyond, data('8.0.1.5', '10.244.2.5')).verdict;
    assert.equal(behindSuperPacket(), NEXT, 'it is there');
    bench.closeSocket();
    assert.equal(behindSuperPacket(), REDIRECTED, 'it was killed');
  });

  it('has the kernel ask for a MAC address that it has forgotten, though the agent was there a moment ago', async () => {
    back();
    bench.grant(ipv4Of(address(UNRESOLVED)));
    await bench.ip('tuntap', 'add', 'dev', 'tun0', 'mode', 'tun');
    await bench.ip('link', 'set', 'tun0', 'up');
    await bench.ip('address', 'add', '8.0.1.5/32', 'dev', 'tun0');
    await bench.ip('route', 'add', '10.244.0.0/16', 'dev', 'tun0', 'src', '8.0.1.5');
    const isAsking = (): boolean => readFileSync('/proc/net/arp', 'utf8').includes(`${UNRESOLVED} `);
    for (const segmentation of ['beyond', 'host'] as const) {
      using _ = attachTcx(bench.outbound[segmentation], readDeviceIndex('tun0'), 'egress');
      assert.ok(!isAsking());
      const socket = createSocket('udp4');
      await new Promise((resolve) => socket.send('x', 9, '10.244.4.1', resolve));
      socket.close();
      await eventually(`segmentation ${segmentation}: it asks`, () => isAsking() || undefined, 5_000);
      await bench.ip('neigh', 'delete', UNRESOLVED, 'dev', 'eth0');
    }
  });

  it('takes what a socket sent as soon as there is none here', () => {
    bench.grant(PEER);
    const packet = fromSocket(PEER, data('10.244.2.5', '8.0.1.5'));
    for (const forget of [back, () => away(600n)]) {
      forget();
      for (const program of Object.values(bench.programs))
        assert.equal(runProgram(program, packet).verdict, REDIRECTED);
    }
  });
});
