import { constants } from 'node:os';
import type { BpfMap } from '../../src/dataplane/fast-path/bpf-map.ts';
import type { BpfMapOptions } from '../../src/linux/bpf.ts';

const { E2BIG, EBADF, EEXIST, EINVAL, ENOENT, ENOSPC } = constants.errno;

/** One call that was to change a map, accepted or not. */
export interface FakeBpfWrite {
  readonly map: string;
  readonly operation: 'update' | 'add' | 'remove';
  readonly key: Uint8Array;
}

/** Of a key of u32 prefix length and an address, the highest byte first. */
function prefixOf(key: Uint8Array): { readonly length: number; readonly bits: string } {
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength);
  const bits = [...key.subarray(4)].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return { length: view.getUint32(0, true), bits };
}

/** A BPF map in memory; what it answers is what Linux does (test/contract/bpf-map.ts). */
export class FakeBpfMap implements BpfMap {
  readonly fd = -1;
  readonly #options: BpfMapOptions;
  readonly #journal: FakeBpfWrite[] | undefined;
  readonly #entries = new Map<string, { readonly key: Uint8Array; readonly value: Uint8Array }>();
  #isClosed = false;
  /** When not 0, what every update and every addition fails with, as a kernel without memory does: an errno. */
  failWith = 0;

  /** @param journal gets the writes of all maps that share it, in order. */
  constructor(options: BpfMapOptions, journal?: FakeBpfWrite[]) {
    this.#options = options;
    this.#journal = journal;
  }

  update(key: Uint8Array, value: Uint8Array): number {
    return this.#put('update', key, value);
  }

  add(key: Uint8Array, value: Uint8Array): number {
    return this.#put('add', key, value);
  }

  remove(key: Uint8Array): number {
    this.#journal?.push({ map: this.#options.name, operation: 'remove', key: key.slice() });
    const problem = this.#check(key);
    if (problem !== 0) return problem;
    return this.#entries.delete(this.#nameOf(key)) ? 0 : -ENOENT;
  }

  lookup(key: Uint8Array, value: Uint8Array): number {
    this.#requireLengths(key, value);
    if (this.#isClosed) return -EBADF;
    const found = this.#options.kind !== 'lpm-trie' ? this.#entries.get(this.#nameOf(key)) : this.#longest(key);
    if (found === undefined) return -ENOENT;
    value.set(found.value);
    return 0;
  }

  first(key: Uint8Array): number {
    if (this.#isClosed) return -EBADF;
    const [entry] = this.#entries.values();
    if (entry === undefined) return -ENOENT;
    key.set(entry.key);
    return 0;
  }

  keys(): Uint8Array[] {
    return this.#isClosed ? [] : [...this.#entries.values()].map(({ key }) => key.slice());
  }

  /** Copies, by key in hexadecimal. */
  entries(): Map<string, Uint8Array> {
    const all = [...this.#entries.values()];
    return new Map(all.map(({ key, value }) => [Buffer.from(key).toString('hex'), value.slice()]));
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
  }

  #put(operation: 'update' | 'add', key: Uint8Array, value: Uint8Array): number {
    this.#journal?.push({ map: this.#options.name, operation, key: key.slice() });
    this.#requireLengths(key, value);
    const problem = this.#check(key);
    if (problem !== 0) return problem;
    if (this.failWith !== 0) return -this.failWith;
    const name = this.#nameOf(key);
    const isThere = this.#entries.has(name);
    if (isThere && operation === 'add') return -EEXIST;
    if (!isThere && this.#entries.size >= this.#options.maxEntries) {
      return this.#options.kind === 'hash' ? -E2BIG : -ENOSPC;
    }
    this.#entries.set(name, { key: key.slice(), value: value.slice() });
    return 0;
  }

  #check(key: Uint8Array): number {
    if (this.#isClosed) return -EBADF;
    if (this.#options.kind !== 'lpm-trie') return 0;
    const { length, bits } = prefixOf(key);
    return length > bits.length ? -EINVAL : 0;
  }

  /** The kernel would read as many bytes as the map was made with: anything else is an error of the caller. */
  #requireLengths(key: Uint8Array, value: Uint8Array): void {
    const { keyBytes, valueBytes, name } = this.#options;
    if (key.length === keyBytes && value.length === valueBytes) return;
    throw new Error(
      `${name}: key of ${key.length} bytes and value of ${value.length}, not ${keyBytes} and ${valueBytes}`,
    );
  }

  /** Equal for keys that are the same to the kernel: bits of an address behind the prefix are not looked at. */
  #nameOf(key: Uint8Array): string {
    if (this.#options.kind !== 'lpm-trie') return Buffer.from(key).toString('hex');
    const { length, bits } = prefixOf(key);
    return `${bits.slice(0, length)}/${length}`;
  }

  #longest(wanted: Uint8Array): { readonly value: Uint8Array } | undefined {
    const { length, bits } = prefixOf(wanted);
    if (length > bits.length) return undefined;
    for (let most = length; most >= 0; most--) {
      const found = this.#entries.get(`${bits.slice(0, most)}/${most}`);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}
