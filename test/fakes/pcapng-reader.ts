import assert from 'node:assert/strict';

/** Written from draft-ietf-opsawg-pcapng for the tests alone: little endian, and only the blocks that weft writes. */

export interface ReadPacket {
  readonly interface: string;
  readonly timeNs: bigint;
  readonly direction: 'inbound' | 'outbound';
  readonly originalBytes: number;
  readonly bytes: Uint8Array;
  readonly comment: string | undefined;
}

export interface ReadCapture {
  readonly program: string;
  readonly interfaces: readonly {
    readonly name: string;
    readonly description: string;
    readonly linkType: number;
    readonly snapBytes: number;
    readonly exponent: number;
  }[];
  /** Address in hexadecimal → name. */
  readonly names: ReadonlyMap<string, string>;
  readonly packets: readonly ReadPacket[];
  readonly statistics: readonly { readonly interface: string; readonly received: number; readonly dropped: number }[];
}

/** @throws AssertionError for anything that the format does not allow. */
export function readPcapng(file: Uint8Array): ReadCapture {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const text = (bytes: Uint8Array): string => new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  const number64 = (bytes: Uint8Array): number => Number(Buffer.from(bytes).readBigUInt64LE());
  /** Options and records have the same form; 0 ends them. */
  function items(from: number, to: number): Map<number, Uint8Array[]> {
    const found = new Map<number, Uint8Array[]>();
    for (let at = from; at < to; ) {
      const [code, length] = [view.getUint16(at, true), view.getUint16(at + 2, true)];
      at += 4;
      if (code === 0) {
        assert.equal(length, 0, 'the end has no value');
        assert.equal(at, to, 'nothing follows the end');
        return found;
      }
      found.set(code, [...(found.get(code) ?? []), file.subarray(at, at + length)]);
      const padding = (4 - (length % 4)) % 4;
      assert.ok(file.subarray(at + length, at + length + padding).every((byte) => byte === 0));
      at += length + padding;
    }
    assert.equal(from, to, 'items end with their end');
    return found;
  }
  const one = (options: Map<number, Uint8Array[]>, code: number): Uint8Array => {
    const [value, second] = options.get(code) ?? [];
    assert.ok(value !== undefined && second === undefined, `option ${code}, once`);
    return value;
  };
  const interfaces: ReadCapture['interfaces'][number][] = [];
  const names = new Map<string, string>();
  const packets: ReadPacket[] = [];
  const statistics: ReadCapture['statistics'][number][] = [];
  let program = '';
  for (let at = 0; at < file.length; ) {
    const [type, length] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    assert.equal(length % 4, 0);
    assert.equal(view.getUint32(at + length - 4, true), length, 'the length stands at both ends');
    assert.equal(type === 0x0a0d0d0a, at === 0, 'the section header is first');
    const [body, end] = [at + 8, at + length - 4];
    const timeNs = (): bigint =>
      (BigInt(view.getUint32(body + 4, true)) << 32n) | BigInt(view.getUint32(body + 8, true));
    switch (type) {
      case 0x0a0d0d0a:
        assert.equal(view.getUint32(body, true), 0x1a2b3c4d);
        assert.deepEqual([view.getUint16(body + 4, true), view.getUint16(body + 6, true)], [1, 0]);
        assert.equal(view.getBigInt64(body + 8, true), -1n);
        program = text(one(items(body + 16, end), 4));
        break;
      case 1: {
        const options = items(body + 8, end);
        const [name, description] = [text(one(options, 2)), text(one(options, 3))];
        const [linkType, snapBytes] = [view.getUint16(body, true), view.getUint32(body + 4, true)];
        interfaces.push({ name, description, linkType, snapBytes, exponent: one(options, 9)[0]! });
        break;
      }
      case 4:
        for (const [kind, records] of items(body, end)) {
          assert.ok(kind === 1 || kind === 2);
          for (const record of records) {
            const bytes = kind === 1 ? 4 : 16;
            assert.equal(record.at(-1), 0, 'a name ends with a zero');
            names.set(Buffer.from(record.subarray(0, bytes)).toString('hex'), text(record.subarray(bytes, -1)));
          }
        }
        break;
      case 5: {
        const options = items(body + 12, end);
        const { name } = interfaces[view.getUint32(body, true)]!;
        statistics.push({ interface: name, received: number64(one(options, 4)), dropped: number64(one(options, 5)) });
        break;
      }
      case 6: {
        const captured = view.getUint32(body + 12, true);
        const options = items(body + 20 + Math.ceil(captured / 4) * 4, end);
        const flags = Buffer.from(one(options, 2)).readUInt32LE();
        assert.ok(flags === 1 || flags === 2);
        const comment = options.get(1)?.[0];
        packets.push({
          interface: interfaces[view.getUint32(body, true)]!.name,
          timeNs: timeNs(),
          direction: flags === 1 ? 'inbound' : 'outbound',
          originalBytes: view.getUint32(body + 16, true),
          bytes: Uint8Array.from(file.subarray(body + 20, body + 20 + captured)),
          comment: comment && text(comment),
        });
        break;
      }
      default:
        assert.fail(`block of type ${type}`);
    }
    at += length;
  }
  return { program, interfaces, names, packets, statistics };
}
