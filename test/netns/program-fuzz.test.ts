import assert from 'node:assert/strict';
import { it } from 'node:test';
import { address, concat, payloadOf, udpPacket } from '../fakes/packets.ts';
import { address6, udp6Packet } from '../fakes/packets6.ts';
import { runOutboundFuzz, sentByPrograms } from '../fuzz/outbound-fuzz-run.ts';
import { openProgramBench } from '../fuzz/program-bench.ts';
import { FUZZ_PEERS, runProgramFuzz } from '../fuzz/program-fuzz-run.ts';

it('the inbound programs take nothing that host and forwarder would not, to the byte: 5,000 frames', async () => {
  await using bench = await openProgramBench();
  const { taken, takenAcknowledgements, takenByXdp, left } = await runProgramFuzz(bench, { packets: 5_000, seed: 1 });
  // The frames reach what they are meant to reach.
  const reached = [taken, takenAcknowledgements, takenByXdp, left];
  assert.ok(
    [100, 30, 30, 500].every((least, index) => reached[index]! > least),
    `${reached}`,
  );
});

it('the outbound programs send what the forwarder would send, to the byte: 5,000 packets', async () => {
  await using bench = await openProgramBench(FUZZ_PEERS.map(({ publicIp }) => publicIp));
  const { sent, leftAndSent } = runOutboundFuzz(bench, { packets: 5_000, seed: 1 });
  assert.ok(sent > 500 && leftAndSent > 200, `${sent}, ${leftAndSent}`);
});

it('the outbound programs leave every packet of IPv6 to the forwarder, also one that looks like a peer’s to IPv4', async () => {
  await using bench = await openProgramBench(FUZZ_PEERS.map(({ publicIp }) => publicIp));
  // The kernel takes what lies at byte 12 for the protocol of the frame: 0x0800 is IPv4, 0x86dd IPv6.
  const ip = { source: address('8.0.1.2'), destination: address('10.244.2.9') };
  const ipv4 = udpPacket({ ip, sourcePort: 1, destinationPort: 2, payload: payloadOf(100) });
  const control = sentByPrograms(bench, [ipv4]);
  assert.ok(
    control.every((sent) => sent !== undefined),
    'the same packet of IPv4 is sent',
  );
  const disguised = Array.from({ length: 16 }, (_, low) => concat([0x60 | low], ipv4.subarray(1)));
  const real = ['fd00:244:86dd:1::2', 'fd00:244:800:af4:209::'].map((source) =>
    udp6Packet({
      ip: { source: address6(source), destination: address6('fd00:244:0:2::9') },
      ...{ sourcePort: 1, destinationPort: 2, payload: payloadOf(100) },
    }),
  );
  for (const sent of sentByPrograms(bench, [...disguised, ...real])) assert.equal(sent, undefined);
});
