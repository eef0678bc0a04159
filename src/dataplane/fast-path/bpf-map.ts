import type { MapName } from './layout.ts';

/** A map in the kernel. Keys and values have the lengths it was made with; results are 0 or −errno, and nothing throws. */
export interface BpfMap extends Disposable {
  readonly fd: number;
  /** Adds an entry, or replaces its value. */
  update(key: Uint8Array, value: Uint8Array): number;
  /** Adds an entry; −EEXIST, and the value left as it is, when the key is there. */
  add(key: Uint8Array, value: Uint8Array): number;
  remove(key: Uint8Array): number;
  /** Copies the value into `value`. */
  lookup(key: Uint8Array, value: Uint8Array): number;
  /** Copies the key of some entry into `key`; −ENOENT when there is none. */
  first(key: Uint8Array): number;
  /** All that there are, if nothing else changes the map meanwhile. */
  keys(): readonly Uint8Array[];
}

export type BpfMaps = Readonly<Record<MapName, BpfMap>>;
