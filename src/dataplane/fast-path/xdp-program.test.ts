import assert from 'node:assert/strict';
import { it } from 'node:test';
import { ipv4Of } from '../../ip/ipv4.ts';
import { mapsBy } from './layout.ts';
import { xdpProgram } from './xdp-program.ts';

const maps = mapsBy(() => ({ fd: 3 }));
const JUMPS = [0x05, 0x06];
const CALL = 0x85;
const EXIT = 0x95;
/** BPF_MAXINSNS (linux/bpf_common.h) */
const MOST_INSTRUCTIONS = 4_096;

for (const segmentation of ['host', 'beyond'] as const) {
  it(`the program before GRO has no loop and is short enough for any kernel (${segmentation})`, () => {
    const code = xdpProgram({
      ...{ maps, ownAddress: ipv4Of(0xc0a84d01), ownPort: 8285, tunIndex: 7, underlayIndex: 2 },
      ...{ segmentation, carriesIpv6: true, destinationCheck: 'loose', ownMac: [2, 0, 0xc0, 0xa8, 0x4d, 1] },
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
