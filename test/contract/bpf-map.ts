import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { BpfMap } from '../../src/dataplane/fast-path/bpf-map.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { containsAddr4, type Ipv4Prefix, parsePrefix4, prefix4 } from '../../src/ip/prefix.ts';
import type { BpfMapOptions } from '../../src/linux/bpf.ts';

const { E2BIG, EEXIST, EINVAL, ENOENT, ENOSPC } = constants.errno;
const KEY_BYTES = 8;
const VALUE_BYTES = 12;
const ADDRESS_BITS = 32;

type Kind = Exclude<BpfMapOptions['kind'], 'array'>;
const KINDS: readonly Kind[] = ['hash', 'lpm-trie'];

/** What a kernel answers when there is no room for another entry. */
const FULL: Readonly<Record<Kind, number>> = { hash: -E2BIG, 'lpm-trie': -ENOSPC };

/** A key of a longest-prefix table; any 8 bytes to a hash table. */
function keyOf(address: number, length: number): Uint8Array {
  const key = Buffer.alloc(KEY_BYTES);
  key.writeUInt32LE(length);
  key.writeUInt32BE(address, 4);
  return key;
}

function key(text: string): Uint8Array {
  const prefix = parsePrefix4(text);
  assert.ok(prefix !== undefined, text);
  return keyOf(prefix.addr, prefix.length);
}

const value = (byte: number): Uint8Array => new Uint8Array(VALUE_BYTES).map((_, index) => (byte + index) & 0xff);

/** What is found, or −errno; a value that must not be touched is checked. */
function found(map: BpfMap, wanted: Uint8Array): Uint8Array | number {
  const untouched = value(0xa5);
  const bytes = untouched.slice();
  const result = map.lookup(wanted, bytes);
  if (result < 0) {
    assert.deepEqual(bytes, untouched);
    return result;
  }
  assert.equal(result, 0);
  return bytes;
}

interface Entry {
  readonly prefix: Ipv4Prefix;
  readonly value: number;
}

const samePrefix = (a: Ipv4Prefix, b: Ipv4Prefix): boolean => a.addr === b.addr && a.length === b.length;

/** The obvious way, over a plain list. */
function naiveLookup(kind: Kind, entries: readonly Entry[], { addr, length }: Ipv4Prefix): Entry | undefined {
  if (kind === 'hash') return entries.find(({ prefix }) => samePrefix(prefix, { addr, length }));
  return entries
    .filter(({ prefix }) => prefix.length <= length && containsAddr4(prefix, addr))
    .toSorted((a, b) => b.prefix.length - a.prefix.length)[0];
}

/** Close together, so that prefixes nest and keys are met again. */
const prefixes: fc.Arbitrary<Ipv4Prefix> = fc
  .tuple(fc.constantFrom(0, 10, 11, 138, 255), fc.constantFrom(0, 1, 129), fc.constantFrom(0, 8, 9, 16, 17, 24, 32))
  .map(([high, low, length]) => prefix4(ipv4Of(((high << 24) | (low << 16) | low) >>> 0), length));

const changes = fc.record({
  operation: fc.constantFrom('update', 'add', 'remove', 'lookup'),
  prefix: prefixes,
  value: fc.nat(255),
});

/** What every map does: the fake one, and the kernel's. */
export function bpfMapContract(name: string, create: (options: BpfMapOptions) => BpfMap): void {
  const open = (kind: Kind, maxEntries = 8): BpfMap =>
    create({ kind, name: 'weft_test', keyBytes: KEY_BYTES, valueBytes: VALUE_BYTES, maxEntries });

  describe(`BPF map contract: ${name}`, () => {
    for (const kind of KINDS) {
      describe(kind, () => {
        it('finds what was written, and the last of it', () => {
          using map = open(kind);
          assert.equal(map.update(key('10.1.0.0/16'), value(1)), 0);
          assert.equal(map.add(key('10.2.0.0/16'), value(2)), 0);
          assert.deepEqual(found(map, key('10.1.0.0/16')), value(1));
          assert.deepEqual(found(map, key('10.2.0.0/16')), value(2));
          assert.equal(map.update(key('10.1.0.0/16'), value(3)), 0);
          assert.deepEqual(found(map, key('10.1.0.0/16')), value(3));
          assert.deepEqual(found(map, key('10.2.0.0/16')), value(2));
        });

        it('adds only what is not there yet', () => {
          using map = open(kind);
          assert.equal(map.update(key('10.1.0.0/16'), value(1)), 0);
          assert.equal(map.add(key('10.1.0.0/16'), value(2)), -EEXIST);
          assert.deepEqual(found(map, key('10.1.0.0/16')), value(1));
        });

        it('says what is not there, and leaves the value alone', () => {
          using map = open(kind);
          assert.equal(found(map, key('10.1.0.0/16')), -ENOENT);
          assert.equal(map.remove(key('10.1.0.0/16')), -ENOENT);
          map.update(key('10.1.0.0/16'), value(1));
          assert.equal(found(map, key('10.2.0.0/16')), -ENOENT);
          assert.equal(map.remove(key('10.2.0.0/16')), -ENOENT);
          assert.deepEqual(found(map, key('10.1.0.0/16')), value(1));
        });

        it('removes one entry, which can be added again', () => {
          using map = open(kind);
          map.update(key('10.1.0.0/16'), value(1));
          map.update(key('10.2.0.0/16'), value(2));
          assert.equal(map.remove(key('10.1.0.0/16')), 0);
          assert.equal(found(map, key('10.1.0.0/16')), -ENOENT);
          assert.deepEqual(found(map, key('10.2.0.0/16')), value(2));
          assert.equal(map.remove(key('10.1.0.0/16')), -ENOENT);
          assert.equal(map.add(key('10.1.0.0/16'), value(3)), 0);
          assert.deepEqual(found(map, key('10.1.0.0/16')), value(3));
        });

        it('takes as many entries as it was made for, replaces one when it is full, and has room after a removal', () => {
          using map = open(kind, 3);
          // Far apart: what a trie needs in between does not count.
          const keys = ['10.1.0.0/16', '172.16.0.0/16', '192.168.1.0/24'].map(key);
          for (const each of keys) assert.equal(map.update(each, value(1)), 0);
          const more = key('10.2.0.0/16');
          assert.equal(map.update(more, value(2)), FULL[kind]);
          assert.equal(map.add(more, value(2)), FULL[kind]);
          assert.equal(found(map, more), -ENOENT);
          assert.equal(map.add(keys[0]!, value(2)), -EEXIST);
          assert.equal(map.update(keys[0]!, value(3)), 0);
          assert.deepEqual(found(map, keys[0]!), value(3));
          assert.equal(map.remove(keys[1]!), 0);
          assert.equal(map.add(more, value(4)), 0);
          assert.deepEqual(found(map, more), value(4));
        });

        it('names all keys', () => {
          using map = open(kind);
          assert.deepEqual(map.keys(), []);
          const keys = ['10.1.0.0/16', '10.2.0.0/16', '10.2.3.0/24'].map(key);
          for (const one of keys) map.update(one, value(1));
          const named = map.keys().map((one) => Buffer.from(one).toString('hex'));
          assert.deepEqual(named.toSorted(), keys.map((one) => Buffer.from(one).toString('hex')).toSorted());
        });

        it('names some key for as long as there is one', () => {
          using map = open(kind);
          const keys = [key('10.1.0.0/16'), key('10.2.0.0/16')];
          for (const one of keys) map.update(one, value(1));
          const hex = (one: Uint8Array): string => Buffer.from(one).toString('hex');
          const seen: string[] = [];
          const taken = new Uint8Array(KEY_BYTES);
          while (map.first(taken) === 0) {
            seen.push(hex(taken));
            assert.equal(map.remove(taken), 0);
          }
          assert.deepEqual(seen.toSorted(), keys.map(hex));
          const untouched = taken.slice();
          assert.equal(map.first(taken), -ENOENT);
          assert.deepEqual(taken, untouched);
        });

        it('keeps no hold of the caller’s memory', () => {
          using map = open(kind);
          const bytes = value(1);
          const name = key('10.1.0.0/16');
          map.update(name, bytes);
          bytes.fill(0);
          name.set(key('10.2.0.0/16'));
          const result = found(map, key('10.1.0.0/16'));
          assert.deepEqual(result, value(1));
          map.update(key('10.1.0.0/16'), value(2));
          assert.deepEqual(result, value(1));
        });

        it('is a map of its own', () => {
          using map = open(kind);
          using other = open(kind);
          map.update(key('10.1.0.0/16'), value(1));
          assert.equal(found(other, key('10.1.0.0/16')), -ENOENT);
          other.update(key('10.1.0.0/16'), value(2));
          assert.deepEqual(found(map, key('10.1.0.0/16')), value(1));
        });

        it('agrees with a plain list, whatever is written and removed (property)', () => {
          fc.assert(
            fc.property(fc.array(changes, { maxLength: 60 }), fc.integer({ min: 1, max: 12 }), (list, maxEntries) => {
              using map = open(kind, maxEntries);
              let entries: Entry[] = [];
              for (const { operation, prefix, value: byte } of list) {
                const bytes = keyOf(prefix.addr, prefix.length);
                const others = entries.filter((entry) => !samePrefix(entry.prefix, prefix));
                const isThere = others.length < entries.length;
                const isFull = !isThere && entries.length === maxEntries;
                if (operation === 'lookup') {
                  const expected = naiveLookup(kind, entries, prefix);
                  assert.deepEqual(found(map, bytes), expected === undefined ? -ENOENT : value(expected.value));
                } else if (operation === 'remove') {
                  assert.equal(map.remove(bytes), isThere ? 0 : -ENOENT);
                  entries = others;
                } else if (operation === 'add' && isThere) {
                  assert.equal(map.add(bytes, value(byte)), -EEXIST);
                } else {
                  assert.equal(map[operation](bytes, value(byte)), isFull ? FULL[kind] : 0);
                  if (!isFull) entries = [...others, { prefix, value: byte }];
                }
              }
              for (const { prefix, value: byte } of entries) {
                assert.deepEqual(found(map, keyOf(prefix.addr, prefix.length)), value(byte));
              }
            }),
          );
        });
      });
    }

    describe('longest prefix', () => {
      it('is what an address finds', () => {
        using map = open('lpm-trie');
        map.update(key('10.0.0.0/8'), value(8));
        map.update(key('10.1.0.0/16'), value(16));
        map.update(key('10.1.2.0/24'), value(24));
        map.update(key('10.1.2.3/32'), value(32));
        const expected: readonly (readonly [string, number])[] = [
          ['10.1.2.3/32', 32],
          ['10.1.2.4/32', 24],
          ['10.1.3.0/32', 16],
          ['10.2.0.0/32', 8],
          ['10.255.255.255/32', 8],
          ['10.1.2.0/24', 24],
          ['10.1.2.0/23', 16],
        ];
        for (const [text, length] of expected) assert.deepEqual(found(map, key(text)), value(length), text);
        assert.equal(found(map, key('11.0.0.0/32')), -ENOENT);
        assert.equal(found(map, key('10.0.0.0/7')), -ENOENT);
        map.remove(key('10.1.2.0/24'));
        assert.deepEqual(found(map, key('10.1.2.4/32')), value(16));
        assert.deepEqual(found(map, key('10.1.2.3/32')), value(32));
        map.update(key('0.0.0.0/0'), value(0));
        assert.deepEqual(found(map, key('11.0.0.0/32')), value(0));
      });

      it('does not look at the bits behind it', () => {
        using map = open('lpm-trie');
        assert.equal(map.update(keyOf(0x0a01_0203, 16), value(1)), 0);
        assert.equal(map.add(keyOf(0x0a01_ffff, 16), value(2)), -EEXIST);
        assert.deepEqual(found(map, keyOf(0x0a01_7777, ADDRESS_BITS)), value(1));
        assert.equal(map.remove(keyOf(0x0a01_0000, 16)), 0);
        assert.equal(found(map, keyOf(0x0a01_0203, ADDRESS_BITS)), -ENOENT);
      });

      it('is not longer than an address', () => {
        using map = open('lpm-trie');
        const tooLong = keyOf(0x0a01_0203, ADDRESS_BITS + 1);
        map.update(key('0.0.0.0/0'), value(1));
        assert.equal(map.update(tooLong, value(2)), -EINVAL);
        assert.equal(map.add(tooLong, value(2)), -EINVAL);
        assert.equal(map.remove(tooLong), -EINVAL);
        assert.equal(found(map, tooLong), -ENOENT);
      });
    });
  });
}
