/**
 * The capture file format of libpcap, as `tcpdump -w -` writes it (draft-ietf-opsawg-pcap): a 24-byte header, then
 * records. Both byte orders, both timestamp resolutions. Pure: bytes in, records out.
 */
import { WeftError } from '../errors.ts';

/** What the first bytes of a captured frame are. `raw` is an IP packet without a link header, as on a TUN device. */
export type LinkType = 'ethernet' | 'raw' | 'unsupported';

export interface CapturedFrame {
  readonly linkType: LinkType;
  /** Nanoseconds since the epoch, by the kernel's clock; microsecond files are scaled up. */
  readonly timeNs: bigint;
  /** Length of the frame on the device; more than `bytes.length` when the snapshot length cut it. */
  readonly originalBytes: number;
  readonly bytes: Uint8Array;
}

const HEADER_BYTES = 24;
const RECORD_BYTES = 16;
const MAGIC_MICRO = 0xa1b2c3d4;
const MAGIC_NANO = 0xa1b23c4d;
/** libpcap's own limit (MAXIMUM_SNAPLEN); a longer record means the stream is out of step. */
const MAX_FRAME_BYTES = 262_144;

function linkTypeOf(value: number): LinkType {
  switch (value & 0x0fff_ffff) {
    case 1:
      return 'ethernet';
    case 12: // LINKTYPE_RAW as some kernels' DLT_RAW
    case 101: // LINKTYPE_RAW
    case 228: // LINKTYPE_IPV4
      return 'raw';
    default:
      return 'unsupported';
  }
}

/** Takes the stream in pieces of any size; one reader per stream. */
export class PcapReader {
  #pending: Uint8Array = new Uint8Array(0);
  #header: { littleEndian: boolean; nanosPerTick: bigint; linkType: LinkType } | undefined;

  /** Whether the file header has been read: from then on the capture is running. */
  get started(): boolean {
    return this.#header !== undefined;
  }

  /** Frames completed by these bytes, in order. @throws WeftError WEFT_LAB_FAILED when the stream is not a capture file. */
  push(chunk: Uint8Array): CapturedFrame[] {
    const bytes = new Uint8Array(this.#pending.length + chunk.length);
    bytes.set(this.#pending);
    bytes.set(chunk, this.#pending.length);
    const view = new DataView(bytes.buffer);
    const frames: CapturedFrame[] = [];
    let offset = 0;
    if (this.#header === undefined) {
      if (bytes.length < HEADER_BYTES) {
        this.#pending = bytes;
        return frames;
      }
      this.#header = readHeader(view);
      offset = HEADER_BYTES;
    }
    const { littleEndian, nanosPerTick, linkType } = this.#header;
    while (bytes.length - offset >= RECORD_BYTES) {
      const length = view.getUint32(offset + 8, littleEndian);
      if (length > MAX_FRAME_BYTES) {
        throw new WeftError(
          'WEFT_LAB_FAILED',
          `read a packet capture: a record claims ${length} bytes, the most is 262144`,
        );
      }
      const end = offset + RECORD_BYTES + length;
      if (end > bytes.length) break;
      const seconds = BigInt(view.getUint32(offset, littleEndian));
      const ticks = BigInt(view.getUint32(offset + 4, littleEndian));
      frames.push({
        linkType,
        timeNs: seconds * 1_000_000_000n + ticks * nanosPerTick,
        originalBytes: view.getUint32(offset + 12, littleEndian),
        bytes: bytes.slice(offset + RECORD_BYTES, end),
      });
      offset = end;
    }
    this.#pending = bytes.slice(offset);
    return frames;
  }
}

function readHeader(view: DataView): { littleEndian: boolean; nanosPerTick: bigint; linkType: LinkType } {
  for (const littleEndian of [true, false]) {
    const magic = view.getUint32(0, littleEndian);
    if (magic === MAGIC_MICRO || magic === MAGIC_NANO) {
      return {
        littleEndian,
        nanosPerTick: magic === MAGIC_NANO ? 1n : 1000n,
        linkType: linkTypeOf(view.getUint32(20, littleEndian)),
      };
    }
  }
  const magic = view.getUint32(0, false).toString(16).padStart(8, '0');
  throw new WeftError('WEFT_LAB_FAILED', `read a packet capture: it starts with 0x${magic}, which is no pcap file`);
}
