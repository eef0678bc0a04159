import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { IpAddr } from '../../ip/address.ts';
import { ipv4Of } from '../../ip/ipv4.ts';
import { ipv6Of } from '../../ip/ipv6.ts';
import { mapsBy, underlayLayout } from './layout.ts';
import { xdpProgram } from './xdp-program.ts';

const JUMPS = [0x05, 0x06];
const CALL = 0x85;
const EXIT = 0x95;
/** BPF_MAXINSNS (linux/bpf_common.h) */
const MOST_INSTRUCTIONS = 4_096;

const OWN: Readonly<Record<4 | 6, IpAddr>> = { 4: ipv4Of(0xc0a84d01), 6: ipv6Of(0xfd77n << 112n) };
const CASES = ([4, 6] as const).flatMap((underlay) =>
  (['host', 'beyond'] as const).map((segmentation) => ({ underlay, segmentation })),
);

for (const { underlay, segmentation } of CASES) {
  it(`the program before GRO has no loop and is short enough for any kernel (${segmentation}, IPv${underlay} between hosts)`, () => {
    const code = xdpProgram({
      maps: mapsBy(underlayLayout(underlay), () => ({ fd: 3 })),
      ...{ ownAddress: OWN[underlay], ownPort: 8285, tunIndex: 7, underlayIndex: 2 },
      ...{ segmentation, carriesIpv6: true, takesCut: true, destinationCheck: 'loose' },
      ownMac: [2, 0, 0xc0, 0xa8, 0x4d, 1],
    });
    const view = new DataView(code.buffer);
    const count = code.length / 8;
    assert.ok(Number.isInteger(count) && count <= MOST_INSTRUCTIONS, `${count} instructions`);
    for (let index = 0; index < count; index++) {
      const operation = view.getUint8(index * 8);
      const isJump = JUMPS.includes(operation & 0x07) && operation !== CALL && operation !== EXIT;
      if (isJump) assert.ok(view.getInt16(index * 8 + 2, true) >= 0, `instruction ${index} jumps back`);
    }
    assert.equal(view.getUint8((count - 1) * 8), EXIT);
  });
}
