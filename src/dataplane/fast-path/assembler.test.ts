import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Arithmetic, Assembler, type Condition, type Register, reg, type Size } from './assembler.ts';

/** The program as RFC 9669 writes one down: opcode, registers (source, destination), offset, immediate; one instruction a line. */
function assembled(write: (asm: Assembler) => void): string[] {
  const asm = new Assembler();
  write(asm);
  const hex = Buffer.from(asm.assemble()).toString('hex');
  return (hex.match(/.{16}/g) ?? []).map((line) => line.replace(/^(..)(..)(....)/, '$1 $2 $3 '));
}

describe('Assembler', () => {
  it('encodes 64-bit arithmetic with constants and registers (RFC 9669, 4.1)', () => {
    const codes: readonly (readonly [Arithmetic, string, string])[] = [
      ['add', '07', '0f'],
      ['sub', '17', '1f'],
      ['mul', '27', '2f'],
      ['and', '57', '5f'],
      ['shl', '67', '6f'],
      ['shr', '77', '7f'],
      ['mod', '97', '9f'],
      ['xor', 'a7', 'af'],
      ['mov', 'b7', 'bf'],
    ];
    for (const [operation, constant, register] of codes) {
      assert.deepEqual(
        assembled((asm) => {
          asm.op(operation, 1, 5);
          asm.op(operation, 1, reg(2));
        }),
        [`${constant} 01 0000 05000000`, `${register} 21 0000 00000000`],
        operation,
      );
    }
  });

  it('encodes 32-bit arithmetic as another class of the same operations (4.1)', () => {
    const codes: readonly (readonly [Arithmetic, string, string])[] = [
      ['add', '04', '0c'],
      ['sub', '14', '1c'],
      ['mul', '24', '2c'],
      ['and', '54', '5c'],
      ['shl', '64', '6c'],
      ['shr', '74', '7c'],
      ['mod', '94', '9c'],
      ['xor', 'a4', 'ac'],
      ['mov', 'b4', 'bc'],
    ];
    for (const [operation, constant, register] of codes) {
      assert.deepEqual(
        assembled((asm) => {
          asm.op32(operation, 7, 5);
          asm.op32(operation, 7, reg(10));
        }),
        [`${constant} 07 0000 05000000`, `${register} a7 0000 00000000`],
        operation,
      );
    }
  });

  it('encodes constants as signed 32-bit numbers, little endian', () => {
    assert.deepEqual(
      assembled((asm) => {
        asm.op('mov', 0, -1);
        asm.op('add', 2, -216);
        asm.op('mov', 3, 1_000_000_000);
        asm.op32('mov', 4, 0x8000_0000 | 0);
      }),
      ['b7 00 0000 ffffffff', '07 02 0000 28ffffff', 'b7 03 0000 00ca9a3b', 'b4 04 0000 00000080'],
    );
  });

  it('refuses a constant that would become another', () => {
    for (const value of [60_000_000_000, 2 ** 32, -(2 ** 31) - 1, 0.5]) {
      assert.throws(() => assembled((asm) => asm.op('add', 1, value)), RangeError, `${value}`);
      assert.throws(() => assembled((asm) => asm.store(8, 10, -8, value)), RangeError, `${value}`);
      assert.throws(() => assembled((asm) => asm.jumpIf('gt', 1, value, 'x')), RangeError, `${value}`);
    }
  });

  it('encodes be16 (4.2)', () => {
    assert.deepEqual(
      assembled((asm) => asm.toBig16(9)),
      ['dc 09 0000 10000000'],
    );
  });

  it('encodes loads and stores of each size (5.1)', () => {
    const codes: readonly (readonly [Size, string, string, string])[] = [
      [1, '71', '72', '73'], // ldxb, stb, stxb
      [2, '69', '6a', '6b'],
      [4, '61', '62', '63'],
      [8, '79', '7a', '7b'],
    ];
    for (const [size, load, constant, register] of codes) {
      assert.deepEqual(
        assembled((asm) => {
          asm.load(size, 1, 6, 16);
          asm.load(size, 0, 10, -8);
          asm.store(size, 10, -8, 32);
          asm.store(size, 10, -16, reg(1));
          asm.store(size, 8, 40, -2);
        }),
        [
          `${load} 61 1000 00000000`,
          `${load} a0 f8ff 00000000`,
          `${constant} 0a f8ff 20000000`,
          `${register} 1a f0ff 00000000`,
          `${constant} 08 2800 feffffff`,
        ],
        `${size} bytes`,
      );
    }
  });

  it('encodes the atomic addition of a 64-bit word, which fetches nothing (5.3)', () => {
    assert.deepEqual(
      assembled((asm) => {
        asm.atomicAdd(0, 0, 1);
        asm.atomicAdd(3, 24, 2);
      }),
      ['db 10 0000 00000000', 'db 23 1800 00000000'],
    );
  });

  it('encodes a map in two slots, by its descriptor (5.4)', () => {
    assert.deepEqual(
      assembled((asm) => asm.loadMap(1, { fd: 0x1234 })),
      ['18 11 0000 34120000', '00 00 0000 00000000'],
    );
  });

  it('encodes call and exit', () => {
    assert.deepEqual(
      assembled((asm) => {
        asm.call(69);
        asm.exit();
      }),
      ['85 00 0000 45000000', '95 00 0000 00000000'],
    );
  });

  it('encodes jumps on each condition (4.3)', () => {
    const codes: readonly (readonly [Condition, string, string])[] = [
      ['eq', '15', '1d'],
      ['gt', '25', '2d'],
      ['ge', '35', '3d'],
      ['set', '45', '4d'],
      ['ne', '55', '5d'],
      ['lt', 'a5', 'ad'],
      ['le', 'b5', 'bd'],
    ];
    for (const [condition, constant, register] of codes) {
      assert.deepEqual(
        assembled((asm) => {
          asm.jumpIf(condition, 3, 7, 'end');
          asm.jumpIf(condition, 3, reg(4), 'end');
          asm.label('end');
          asm.exit();
        }),
        [`${constant} 03 0100 07000000`, `${register} 43 0000 00000000`, '95 00 0000 00000000'],
        condition,
      );
    }
  });

  it('counts jumps from the next instruction, forward and backward, and a map as two instructions', () => {
    assert.deepEqual(
      assembled((asm) => {
        asm.label('start');
        asm.jumpIf('eq', 0, 0, 'end'); // over 1 + 2 + 1
        asm.jump('map'); // to the next one
        asm.label('map');
        asm.loadMap(1, { fd: 3 });
        asm.jump('start'); // back over itself, 2 + 1 + 1
        asm.label('end');
        asm.label('also the end');
        asm.jumpIf('ne', 1, reg(2), 'map'); // back over itself, 1 + 2
        asm.jump('also the end');
        asm.exit();
      }),
      [
        '15 00 0400 00000000',
        '05 00 0000 00000000',
        '18 11 0000 03000000',
        '00 00 0000 00000000',
        '05 00 fbff 00000000',
        '5d 21 fcff 00000000',
        '05 00 feff 00000000',
        '95 00 0000 00000000',
      ],
    );
  });

  it('lands every jump on the instruction behind its label, whatever lies between (property)', () => {
    const step = fc.oneof(
      fc.constant('plain' as const),
      fc.constant('map' as const),
      fc.record({ jumpTo: fc.nat() }),
      fc.record({ jumpIfTo: fc.nat() }),
    );
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
        const asm = new Assembler();
        const slots: number[] = []; // of the instruction each step begins with
        const jumps: { readonly from: number; readonly step: number }[] = [];
        let slot = 0;
        steps.forEach((each, index) => {
          asm.label(`${index}`);
          slots.push(slot);
          if (each === 'plain') asm.op('add', 1, 1);
          else if (each === 'map') asm.loadMap(2, { fd: 9 });
          else {
            const target = ('jumpTo' in each ? each.jumpTo : each.jumpIfTo) % steps.length;
            jumps.push({ from: slot, step: target });
            if ('jumpTo' in each) asm.jump(`${target}`);
            else asm.jumpIf('lt', 3, 4, `${target}`);
          }
          slot += each === 'map' ? 2 : 1;
        });
        const bytes = asm.assemble();
        assert.equal(bytes.length, slot * 8);
        const view = new DataView(bytes.buffer);
        for (const { from, step: target } of jumps) {
          assert.equal(from + 1 + view.getInt16(from * 8 + 2, true), slots[target]);
        }
      }),
    );
  });

  it('keeps both registers of every pair apart', () => {
    const registers: readonly Register[] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    for (const dst of registers) {
      for (const src of registers) {
        const expected = `${src.toString(16)}${dst.toString(16)}`;
        assert.deepEqual(
          assembled((asm) => asm.op('mov', dst, reg(src))),
          [`bf ${expected} 0000 00000000`],
        );
      }
    }
  });

  it('jumps within a scope to its own labels, and else to those outside', () => {
    const asm = new Assembler();
    for (const scope of ['one', 'other']) {
      asm.within(scope, () => {
        asm.jump('end');
        asm.jump('pass');
        asm.label('end');
        asm.exit();
        assert.throws(() => asm.label('end'), { name: 'RangeError', message: /label o[a-z]+\/end / });
      });
    }
    asm.label('end');
    asm.label('pass');
    asm.exit();
    const view = new DataView(asm.assemble().buffer);
    // Two jumps and an exit for each scope, and the last one.
    assert.deepEqual(
      [0, 1, 3, 4].map((index) => view.getInt16(index * 8 + 2, true)),
      [1, 4, 1, 1],
    );
  });

  it('refuses a label that is there twice, and a jump to one that is nowhere', () => {
    const twice = new Assembler();
    twice.label('pass');
    twice.exit();
    assert.throws(() => twice.label('pass'), { name: 'RangeError', message: /label pass / });

    const nowhere = new Assembler();
    nowhere.label('pass');
    nowhere.jump('drop');
    assert.throws(() => nowhere.assemble(), { name: 'RangeError', message: /label drop,/ });
    nowhere.label('drop');
    assert.equal(nowhere.assemble().length, 8);
  });
});
