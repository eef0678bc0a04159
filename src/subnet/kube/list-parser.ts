import { OBJECT_BOUNDS } from '../../lease/go-json.ts';
import { parseJsonWithin } from '../../lease/json-value.ts';

/** The part of a Kubernetes list response that is not its items. */
export interface ListEnvelope {
  readonly resourceVersion: string;
  /** Empty on the last page. */
  readonly continueToken: string;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;

const MAX_ITEM_BYTES = OBJECT_BOUNDS.length;

/**
 * Cuts a Kubernetes list (`{"kind":"NodeList","metadata":{…},"items":[{…},…]}`) into its items while it arrives, so
 * that no more than one object is in memory at a time: an API server may answer from its cache with all 5,000 nodes of
 * 15 kB each in one response, whatever limit was asked for. Feed it bytes with `push`, then call `end` once.
 */
export class ListParser {
  readonly #onItem: (json: string) => void;
  /** What lies outside the items, with the items cut out: a small JSON document of its own. */
  readonly #rest: Buffer[] = [];
  #restBytes = 0;
  #item: Buffer[] = [];
  #itemBytes = 0;
  #depth = 0;
  #inItems = false;
  #inString = false;
  /** Whether an odd number of backslashes directly precedes the next byte, inside a string. */
  #escaped = false;

  /** `onItem` is called with the JSON text of each item, in order. */
  constructor(onItem: (json: string) => void) {
    this.#onItem = onItem;
  }

  /** @throws Error when one item, or all that is none, exceeds 16 MiB. */
  push(chunk: Buffer): void {
    let start = 0;
    let at = 0;
    while (at < chunk.length) {
      if (this.#inString) {
        at = this.#skipString(chunk, at);
        continue;
      }
      const byte = chunk[at]!;
      at++;
      switch (byte) {
        case QUOTE:
          this.#inString = true;
          break;
        case OPEN_BRACE:
          if (this.#inItems && this.#depth === 2) start = at - 1;
          this.#depth++;
          break;
        case OPEN_BRACKET:
          this.#depth++;
          if (this.#depth === 2 && !this.#inItems) {
            this.#keepRest(chunk.subarray(start, at));
            start = at;
            this.#inItems = this.#restEndsWithItemsKey();
          }
          break;
        case CLOSE_BRACE:
          this.#depth--;
          if (this.#inItems && this.#depth === 2) {
            this.#keepItem(chunk.subarray(start, at));
            this.#emitItem();
            start = at;
          }
          break;
        case CLOSE_BRACKET:
          if (this.#inItems && this.#depth === 2) {
            this.#inItems = false;
            start = at - 1;
          }
          this.#depth--;
          break;
        case COMMA:
          if (this.#inItems && this.#depth === 2) start = at;
          break;
      }
    }
    if (!this.#inItems) this.#keepRest(chunk.subarray(start));
    else if (this.#depth > 2) this.#keepItem(chunk.subarray(start));
  }

  /** @throws Error when the document ended early or is not a list. */
  end(): ListEnvelope {
    if (this.#depth !== 0 || this.#inString) throw new Error('the list ended in the middle of an object');
    const envelope: unknown = parseJsonWithin(Buffer.concat(this.#rest).toString('utf8'), OBJECT_BOUNDS);
    const metadata =
      typeof envelope === 'object' && envelope !== null && 'metadata' in envelope ? envelope.metadata : undefined;
    if (typeof metadata !== 'object' || metadata === null || !('resourceVersion' in metadata)) {
      throw new Error('the response is not a list: it has no metadata.resourceVersion');
    }
    return {
      resourceVersion: String(metadata.resourceVersion),
      continueToken: 'continue' in metadata ? String(metadata.continue ?? '') : '',
    };
  }

  /** From a position inside a string to just after its closing quote, or to the end of the chunk. */
  #skipString(chunk: Buffer, from: number): number {
    let at = from;
    for (;;) {
      if (this.#escaped) {
        this.#escaped = false;
        at++;
      }
      if (at >= chunk.length) return at;
      const quote = chunk.indexOf(QUOTE, at);
      const end = quote < 0 ? chunk.length : quote;
      let backslashes = 0;
      while (end - 1 - backslashes >= at && chunk[end - 1 - backslashes] === BACKSLASH) backslashes++;
      const escaped = backslashes % 2 === 1;
      if (quote < 0) {
        this.#escaped = escaped;
        return end;
      }
      if (!escaped) {
        this.#inString = false;
        return quote + 1;
      }
      at = quote + 1;
    }
  }

  #restEndsWithItemsKey(): boolean {
    const tail = Buffer.concat(this.#rest).toString('latin1');
    return /"items"\s*:\s*\[$/.test(tail);
  }

  #keepRest(part: Buffer): void {
    this.#restBytes += part.length;
    if (this.#restBytes > MAX_ITEM_BYTES)
      throw new Error(`what is not the items is larger than ${MAX_ITEM_BYTES} bytes`);
    this.#rest.push(part);
  }

  #keepItem(part: Buffer): void {
    this.#itemBytes += part.length;
    if (this.#itemBytes > MAX_ITEM_BYTES)
      throw new Error(`an object of the list is larger than ${MAX_ITEM_BYTES} bytes`);
    this.#item.push(part);
  }

  #emitItem(): void {
    const json = this.#item.length === 1 ? this.#item[0]! : Buffer.concat(this.#item);
    this.#item = [];
    this.#itemBytes = 0;
    this.#onItem(json.toString('utf8'));
  }
}

/** Cuts a byte stream at line feeds. @throws Error when a line exceeds 16 MiB. */
export class LineParser {
  #parts: Buffer[] = [];
  #bytes = 0;

  /** The lines that `chunk` completes, without their line feed; empty lines are dropped. */
  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let start = 0;
    for (;;) {
      const feed = chunk.indexOf(0x0a, start);
      if (feed < 0) break;
      this.#parts.push(chunk.subarray(start, feed));
      const line = (this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts)).toString('utf8');
      this.#parts = [];
      this.#bytes = 0;
      if (line !== '') lines.push(line);
      start = feed + 1;
    }
    if (start < chunk.length) {
      this.#bytes += chunk.length - start;
      if (this.#bytes > MAX_ITEM_BYTES)
        throw new Error(`a line of the response is larger than ${MAX_ITEM_BYTES} bytes`);
      this.#parts.push(chunk.subarray(start));
    }
    return lines;
  }
}
