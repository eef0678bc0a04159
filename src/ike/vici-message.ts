/**
 * Messages and packets of VICI, by which strongSwan's charon is told what to do (strongSwan's README of the plugin vici, "Message
 * format" and "Packet layer"). Numbers are big endian.
 */

/** Sections in sections, lists and texts by name, in their order. */
export type ViciMessage = ReadonlyMap<string, ViciValue>;
export type ViciValue = string | readonly string[] | ViciMessage;

/** The same as objects, for who writes one. */
export interface ViciSection {
  readonly [name: string]: string | readonly string[] | ViciSection;
}

export const VICI_PACKETS = {
  request: 0,
  response: 1,
  unknownCommand: 2,
  registerEvent: 3,
  unregisterEvent: 4,
  eventConfirmed: 5,
  unknownEvent: 6,
  event: 7,
} as const;

const { request, registerEvent, unregisterEvent, event } = VICI_PACKETS;
const NAMED: ReadonlySet<number> = new Set([request, registerEvent, unregisterEvent, event]);

const SECTION_START = 1;
const SECTION_END = 2;
const KEY_VALUE = 3;
const LIST_START = 4;
const LIST_ITEM = 5;
const LIST_END = 6;

const LONGEST_NAME = 0xff;
const LONGEST_VALUE = 0xffff;
/** Of the length before each packet. */
const LENGTH_BYTES = 4;
/** What charon takes and sends at most. */
const LONGEST_PACKET = 512 * 1024;
/** charon's own messages have four levels. */
const DEEPEST = 32;

export interface ViciPacket {
  readonly type: number;
  /** Of a request, or an event and who wants it. */
  readonly name: string | undefined;
  readonly message: ViciMessage;
}

/** @throws RangeError for a name over 255 bytes or a text over 65,535. */
export function viciMessage(section: ViciSection): ViciMessage {
  return new Map(
    Object.entries(section).map(([name, value]): [string, ViciValue] => [
      name,
      typeof value === 'string' || isList(value) ? value : viciMessage(value),
    ]),
  );
}

/** With the length before it. @throws RangeError for what does not fit. */
export function encodePacket(type: number, name: string | undefined, message: ViciMessage = new Map()): Uint8Array {
  const body = Buffer.concat([Buffer.of(type), ...(name === undefined ? [] : [named(name)]), encodeMessage(message)]);
  if (body.length > LONGEST_PACKET) throw new RangeError(`a packet of ${body.length} bytes is too long for charon`);
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

/** A packet without the length before it. @throws RangeError for one that is none. */
export function decodePacket(bytes: Uint8Array): ViciPacket {
  const reader = new Reader(bytes);
  const type = reader.byte();
  const name = NAMED.has(type) ? reader.text(reader.byte()) : undefined;
  return { type, name, message: readSection(reader, 0) };
}

/** Cuts a stream into packets. */
export class ViciPackets {
  #rest: Uint8Array = new Uint8Array();

  /** The packets that are complete with this piece. @throws RangeError for a length that no packet has. */
  take(piece: Uint8Array): ViciPacket[] {
    const bytes = Buffer.concat([this.#rest, piece]);
    const packets: ViciPacket[] = [];
    let at = 0;
    while (bytes.length - at >= LENGTH_BYTES) {
      const length = bytes.readUInt32BE(at);
      if (length === 0 || length > LONGEST_PACKET) throw new RangeError(`no packet has ${length} bytes`);
      if (bytes.length - at - LENGTH_BYTES < length) break;
      packets.push(decodePacket(bytes.subarray(at + LENGTH_BYTES, at + LENGTH_BYTES + length)));
      at += LENGTH_BYTES + length;
    }
    this.#rest = bytes.subarray(at);
    return packets;
  }
}

function isList(value: readonly string[] | ViciSection): value is readonly string[] {
  return Array.isArray(value);
}

function encodeMessage(message: ViciMessage): Buffer {
  const parts: Buffer[] = [];
  for (const [name, value] of message) {
    if (typeof value === 'string') parts.push(Buffer.of(KEY_VALUE), named(name), valued(value));
    else if (value instanceof Map)
      parts.push(Buffer.of(SECTION_START), named(name), encodeMessage(value), Buffer.of(SECTION_END));
    else {
      const items = (value as readonly string[]).flatMap((item) => [Buffer.of(LIST_ITEM), valued(item)]);
      parts.push(Buffer.of(LIST_START), named(name), ...items, Buffer.of(LIST_END));
    }
  }
  return Buffer.concat(parts);
}

function named(name: string): Buffer {
  const text = Buffer.from(name);
  if (text.length > LONGEST_NAME) throw new RangeError(`the name ${name} is longer than ${LONGEST_NAME} bytes`);
  return Buffer.concat([Buffer.of(text.length), text]);
}

/** What is too long may be a secret. */
function valued(value: string): Buffer {
  const text = Buffer.from(value);
  if (text.length > LONGEST_VALUE) throw new RangeError(`a text is longer than ${LONGEST_VALUE} bytes`);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(text.length);
  return Buffer.concat([length, text]);
}

function readSection(reader: Reader, depth: number): ViciMessage {
  if (depth > DEEPEST) throw new RangeError('sections in sections without end');
  const section = new Map<string, ViciValue>();
  for (;;) {
    if (reader.isAtEnd) {
      if (depth > 0) throw new RangeError('a section does not end');
      return section;
    }
    const element = reader.byte();
    if (element === SECTION_END) {
      if (depth === 0) throw new RangeError('a section ends that has not begun');
      return section;
    }
    const name = reader.text(reader.byte());
    if (element === SECTION_START) section.set(name, readSection(reader, depth + 1));
    else if (element === KEY_VALUE) section.set(name, reader.text(reader.short()));
    else if (element === LIST_START) section.set(name, readList(reader));
    else throw new RangeError(`there is no element ${element}`);
  }
}

function readList(reader: Reader): readonly string[] {
  const items: string[] = [];
  for (;;) {
    const element = reader.byte();
    if (element === LIST_END) return items;
    if (element !== LIST_ITEM) throw new RangeError(`element ${element} in a list`);
    items.push(reader.text(reader.short()));
  }
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  byte(): number {
    return this.#bytes.readUInt8(this.#take(1));
  }

  short(): number {
    return this.#bytes.readUInt16BE(this.#take(2));
  }

  text(length: number): string {
    const from = this.#take(length);
    return this.#bytes.toString('utf8', from, this.#at);
  }

  #take(length: number): number {
    const from = this.#at;
    if (from + length > this.#bytes.length) throw new RangeError('the message ends in the middle of an element');
    this.#at += length;
    return from;
  }
}
