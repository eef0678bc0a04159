import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { address, concat, payloadOf, udpPacket } from '../fakes/packets.ts';
import { address6, udp6Packet } from '../fakes/packets6.ts';
import { runOutboundFuzz, sentByPrograms } from '../fuzz/outbound-fuzz-run.ts';
import { NEXT, openProgramBench, runProgram, shortestRun } from '../fuzz/program-bench.ts';
import { fuzzHosts, runProgramFuzz } from '../fuzz/program-fuzz-run.ts';

it('the inbound programs take nothing that host and forwarder would not, to the byte: 5,000 frames', async () => {
  await using bench = await openProgramBench();
  const totals = await runProgramFuzz(bench, { packets: 5_000, seed: 1 });
  const { taken, takenWhereCut, takenByXdp, left, takenIpv6, takenIpv6ByXdp } = totals;
  // The frames reach what they are meant to reach.
  const reached = [taken, takenWhereCut, takenByXdp, left, takenIpv6, takenIpv6ByXdp];
  assert.ok(
    [100, 30, 30, 500, 50, 20].every((least, index) => reached[index]! > least),
    `${reached}`,
  );
});

it('… where hosts have IPv6 alone: 2,000 frames', async () => {
  await using bench = await openProgramBench([], 6);
  const { taken, takenWhereCut, takenByXdp, left } = await runProgramFuzz(bench, { packets: 2_000, seed: 1 });
  const reached = [taken, takenWhereCut, takenByXdp, left];
  assert.ok(
    [10, 4, 20, 500].every((least, index) => reached[index]! > least),
    `${reached}`,
  );
});

it('the outbound programs send what the forwarder would send, to the byte: 5,000 packets', async () => {
  await using bench = await openProgramBench(fuzzHosts(4));
  const { sent, leftAndSent, sentIpv6 } = runOutboundFuzz(bench, { packets: 5_000, seed: 1 });
  assert.ok(sent > 500 && leftAndSent > 200 && sentIpv6 > 200, `${sent}, ${leftAndSent}, ${sentIpv6}`);
});

it('… where hosts have IPv6 alone: 2,000 packets', async () => {
  await using bench = await openProgramBench(fuzzHosts(6), 6);
  const { sent, leftAndSent } = runOutboundFuzz(bench, { packets: 2_000, seed: 1 });
  assert.ok(sent > 60 && leftAndSent > 200, `${sent}, ${leftAndSent}`);
});

it('the kernel runs the programs on packets as short as these runs take for runnable, whatever protocol those name', async () => {
  await using bench = await openProgramBench();
  for (const protocol of [
    [8, 0],
    [0x86, 0xdd],
    [0x12, 0x34],
  ]) {
    const header = concat(new Uint8Array(12), protocol);
    const packet = concat(header, new Uint8Array(shortestRun(header) - header.length));
    for (const program of Object.values(bench.outbound)) assert.equal(runProgram(program, packet).verdict, NEXT);
  }
});

it('the outbound programs leave a packet of IPv6 that the kernel takes for IPv4', async () => {
  await using bench = await openProgramBench(fuzzHosts(4));
  // The kernel takes what lies at byte 12 for the protocol of the frame: 0x0800 is IPv4, 0x86dd IPv6.
  const ip = { source: address('8.0.1.2'), destination: address('10.244.2.9') };
  const ipv4 = udpPacket({ ip, sourcePort: 1, destinationPort: 2, payload: payloadOf(100) });
  const [source, destination] = ['fd00:244:86dd:1::2', 'fd00:244:0:2::9'].map(address6) as [Uint8Array, Uint8Array];
  const ipv6 = udp6Packet({
    ip: { source, destination },
    ...{ sourcePort: 1, destinationPort: 2, payload: payloadOf(100) },
  });
  const control = sentByPrograms(bench, [ipv4, ipv6]);
  assert.ok(
    control.every((sent) => sent !== undefined),
    'the same packets undisguised are sent',
  );
  const disguised = Array.from({ length: 16 }, (_, low) => concat([0x60 | low], ipv4.subarray(1)));
  for (const sent of sentByPrograms(bench, disguised)) assert.equal(sent, undefined);
});

it('the outbound programs send on when there is no room to name the peer whose grants are to be renewed', async () => {
  await using bench = await openProgramBench(fuzzHosts(4));
  const { awaiting } = bench.tables.maps;
  const keyOf = (host: string): Uint8Array => {
    const key = new DataView(new ArrayBuffer(4));
    key.setUint32(0, address(host));
    return new Uint8Array(key.buffer);
  };
  let others = 0;
  for (; others < 256; others++) {
    const key = keyOf(`198.51.100.${others}`);
    if (awaiting.add(key, key) < 0) break;
  }
  assert.ok(others > 0 && others < 256, 'it is full');
  const ip = { source: address('8.0.1.2'), destination: address('10.244.2.9') };
  const packet = udpPacket({ ip, sourcePort: 1, destinationPort: 2, payload: payloadOf(100) });
  assert.ok(sentByPrograms(bench, [packet]).every((sent) => sent !== undefined));
  assert.ok(awaiting.lookup(keyOf('192.168.77.2'), new Uint8Array(4)) < 0);
  assert.equal(bench.tables.takeAwaiting(others + 1).length, others);
});

it('the outbound programs leave what is unusual in IPv6', async () => {
  await using bench = await openProgramBench(fuzzHosts(4));
  const good = udp6Packet({
    ip: { source: address6('fd00:244:86dd:1::2'), destination: address6('fd00:244:0:2::9') },
    ...{ sourcePort: 1, destinationPort: 2, payload: payloadOf(100) },
  });
  assert.ok(sentByPrograms(bench, [good]).every((sent) => sent !== undefined));
  const peer = ipv4Of(address('192.168.77.2'));
  const times = {
    sendUntil: 1n << 62n,
    acceptUntil: 1n << 62n,
    wholeUntil: 1n << 62n,
    sendUntil6: 0n,
    wholeUntil6: 0n,
    takesCutUntil: 0n,
  };
  bench.tables.grant(peer, { ...times, tag: 1, tagWhole: 2, expectTag: 3, expectTagWhole: 4 });
  for (const program of Object.values(bench.outbound)) {
    assert.equal(runProgram(program, good).verdict, NEXT, 'for a peer whose program takes IPv4 alone');
  }
  for (const [what, byte, at] of [
    ['of IPv4', 0x45, 0],
    ['an extension header', 60, 6],
    ['a fragment', 44, 6],
    ['another protocol', 132, 6],
    ['whose hop limit ends here', 1, 7],
    ['longer than it is', 0xff, 5],
    ['to a group', 0xff, 24],
    ['to nobody', 0x99, 31],
  ] as const) {
    const packet = good.slice();
    packet[at] = byte;
    for (const sent of sentByPrograms(bench, [packet])) assert.equal(sent, undefined, what);
  }
});
