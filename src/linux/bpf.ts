/**
 * bpf(2) as far as the fast path needs it: maps, programs, and their attachment to a device (tcx, Linux 6.6; XDP). What
 * is made here ends with the process, unless it is given a path in a bpffs: then it stays there, and the next process that asks
 * for the same takes it over.
 */
import { renameSync, rmSync } from 'node:fs';
import type { BpfMap } from '../dataplane/fast-path/bpf-map.ts';
import { WeftError } from '../errors.ts';
import { ownStatus, whyBpfRefused } from './capabilities.ts';
import {
  BPF_COMMANDS,
  BPF_F_NO_PREALLOC,
  BPF_PROG_TYPE_RAW_TRACEPOINT,
  BPF_PROG_TYPE_SCHED_CLS,
  BPF_PROG_TYPE_XDP,
  EAGAIN,
  EBUSY,
  EINVAL,
  ENODEV,
  ENOSYS,
  EPERM,
} from './constants.ts';
import { addressOf, bpf, close, errnoName } from './ffi.ts';

/** `union bpf_attr` as long as any command here reads it; the kernel wants the rest to be zero. */
const ATTRIBUTE_BYTES = 72;
/** As much of `struct bpf_map_info` and `struct bpf_link_info` as is read here; the kernel fills in what fits. */
const INFO_BYTES = 64;
const VERIFIER_LOG_BYTES = 64 * 1024;
/** The verifier gives up when a signal comes, as Node's own often do. */
const LOAD_ATTEMPTS = 10;
const NAME_BYTES = 15;
const ANY = 0;
const NOEXIST = 1;

/** Memory that does not move while the kernel reads it. */
function sharedBytes(bytes: number): DataView<SharedArrayBuffer> {
  return new DataView(new SharedArrayBuffer(bytes));
}

function copyOf(bytes: Uint8Array): DataView<SharedArrayBuffer> {
  const view = sharedBytes(bytes.length);
  new Uint8Array(view.buffer).set(bytes);
  return view;
}

function putAddress(attributes: DataView, offset: number, view: ArrayBufferView): void {
  attributes.setBigUint64(offset, BigInt(addressOf(view)), true);
}

function putName(attributes: DataView<SharedArrayBuffer>, offset: number, name: string): void {
  new Uint8Array(attributes.buffer).set(new TextEncoder().encode(name).subarray(0, NAME_BYTES), offset);
}

function unavailable(what: string, errno: number, detail = ''): WeftError {
  const hints: Readonly<Record<number, string>> = {
    [EPERM]: errno === -EPERM ? whyBpfRefused(ownStatus()) : '',
    [ENOSYS]: 'The kernel was built without bpf(2).',
    [EINVAL]: 'It takes Linux 6.6 or later.',
    [EBUSY]: 'Another XDP program is attached to the device, or another agent has its own there.',
  };
  const hint = hints[Math.abs(errno)];
  return new WeftError('WEFT_FAST_PATH', `failed to ${what}: ${errnoName(errno)}${detail}`, {
    ...(hint !== undefined && { hint }),
  });
}

export interface BpfMapOptions {
  readonly kind: 'hash' | 'lpm-trie' | 'array';
  /** Shown by bpftool; 15 characters at most. */
  readonly name: string;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly maxEntries: number;
}

const MAP_TYPES: Readonly<Record<BpfMapOptions['kind'], number>> = { hash: 1, array: 2, 'lpm-trie': 11 };

/**
 * Makes a map whose memory is taken entry by entry (an array's at once).
 * @param pin where it is pinned in a bpffs. A map that is there already and is such a one is taken as it is; anything else is replaced.
 * @throws WeftError WEFT_FAST_PATH
 */
export function createBpfMap(options: BpfMapOptions, pin?: string): BpfMap {
  if (pin === undefined) return mapOf(newMap(options), options);
  const pinned = getPinned(pin);
  if (pinned >= 0) {
    if (isSuchMap(pinned, options)) return mapOf(pinned, options);
    close(pinned);
  }
  const fd = newMap(options);
  try {
    pinAs(fd, pin);
  } catch (error) {
    close(fd);
    throw error;
  }
  return mapOf(fd, options);
}

/** `struct bpf_map_info` */
function isSuchMap(fd: number, { kind, keyBytes, valueBytes, maxEntries }: BpfMapOptions): boolean {
  const info = infoOf(fd);
  const is = [0, 8, 12, 16].map((offset) => info?.getUint32(offset, true));
  return [MAP_TYPES[kind], keyBytes, valueBytes, maxEntries].every((wanted, index) => wanted === is[index]);
}

function newMap({ kind, name, keyBytes, valueBytes, maxEntries }: BpfMapOptions): number {
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  attributes.setUint32(0, MAP_TYPES[kind], true);
  attributes.setUint32(4, keyBytes, true);
  attributes.setUint32(8, valueBytes, true);
  attributes.setUint32(12, maxEntries, true);
  attributes.setUint32(16, kind === 'array' ? 0 : BPF_F_NO_PREALLOC, true);
  putName(attributes, 28, name);
  const fd = bpf(BPF_COMMANDS.mapCreate, addressOf(attributes), ATTRIBUTE_BYTES);
  if (fd < 0) throw unavailable(`make the BPF map ${name}`, fd);
  return fd;
}

/** Memory that does not move, with its address: the kernel may use that as long as somebody has this. */
interface FixedView<View extends ArrayBufferView = DataView> {
  readonly view: View;
  readonly address: number;
}

const fixed = <View extends ArrayBufferView>(view: View): FixedView<View> => ({ view, address: addressOf(view) });

function mapOf(fd: number, { keyBytes, valueBytes }: BpfMapOptions): BpfMap {
  const keyMemory = sharedBytes(keyBytes);
  const valueMemory = sharedBytes(valueBytes);
  const attributesOf = (value: DataView | undefined): FixedView => {
    const attributes = sharedBytes(ATTRIBUTE_BYTES);
    attributes.setUint32(0, fd, true);
    putAddress(attributes, 8, keyMemory);
    if (value !== undefined) putAddress(attributes, 16, value);
    return fixed(attributes);
  };
  const entry = attributesOf(valueMemory);
  // Removing takes no value, and the kernel insists on that.
  const keyAlone = attributesOf(undefined);
  const nextKey = sharedBytes(keyBytes);
  const nextEntry = fixed(sharedBytes(ATTRIBUTE_BYTES));
  nextEntry.view.setUint32(0, fd, true);
  putAddress(nextEntry.view, 16, nextKey);
  // Made once: an agent at rest does this all the time.
  const keyIn = fixed(new Uint8Array(keyMemory.buffer));
  const valueMemoryBytes = new Uint8Array(valueMemory.buffer);
  const nextKeyOut = new Uint8Array(nextKey.buffer);
  /** The key after none is the first. */
  const next = (key: Uint8Array | undefined): number => {
    if (key !== undefined) keyIn.view.set(key);
    nextEntry.view.setBigUint64(8, key === undefined ? 0n : BigInt(keyIn.address), true);
    return bpf(BPF_COMMANDS.mapGetNextKey, nextEntry.address, ATTRIBUTE_BYTES);
  };
  const operate = (command: number, key: Uint8Array, flags: number): number => {
    keyIn.view.set(key);
    if (command === BPF_COMMANDS.mapDelete) return bpf(command, keyAlone.address, ATTRIBUTE_BYTES);
    entry.view.setUint32(24, flags, true);
    return bpf(command, entry.address, ATTRIBUTE_BYTES);
  };
  const put = (key: Uint8Array, value: Uint8Array, flags: number): number => {
    valueMemoryBytes.set(value);
    return operate(BPF_COMMANDS.mapUpdate, key, flags);
  };
  return {
    fd,
    update: (key, value) => put(key, value, ANY),
    add: (key, value) => put(key, value, NOEXIST),
    remove: (key) => operate(BPF_COMMANDS.mapDelete, key, ANY),
    lookup: (key, value) => {
      const result = operate(BPF_COMMANDS.mapLookup, key, ANY);
      if (result >= 0) value.set(valueMemoryBytes);
      return result;
    },
    first: (key) => {
      const result = next(undefined);
      if (result >= 0) key.set(nextKeyOut);
      return result;
    },
    keys: () => {
      const keys: Uint8Array[] = [];
      while (next(keys.at(-1)) >= 0) keys.push(nextKeyOut.slice());
      return keys;
    },
    [Symbol.dispose]: () => void close(fd),
  };
}

export interface BpfProgram extends Disposable {
  readonly fd: number;
}

/** `enum bpf_attach_type` */
const BPF_XDP = 37;

/**
 * The program is declared to be under the GPL, one of its licences, because the kernel keeps some helpers (bpf_fib_lookup) for such
 * programs.
 * @param attachType `enum bpf_attach_type`; 0 for types that have one place only.
 * @throws WeftError WEFT_FAST_PATH, with the end of the verifier's log.
 */
function loadProgram(type: number, attachType: number, name: string, code: Uint8Array): BpfProgram {
  const instructions = copyOf(code);
  const licence = copyOf(new TextEncoder().encode('GPL\0'));
  const load = (log: DataView | undefined): number => {
    const attributes = sharedBytes(ATTRIBUTE_BYTES);
    attributes.setUint32(0, type, true);
    attributes.setUint32(4, code.length / 8, true);
    putAddress(attributes, 8, instructions);
    putAddress(attributes, 16, licence);
    if (log !== undefined) {
      attributes.setUint32(24, 1, true);
      attributes.setUint32(28, log.byteLength, true);
      putAddress(attributes, 32, log);
    }
    putName(attributes, 48, name);
    attributes.setUint32(68, attachType, true);
    let fd = -EAGAIN;
    for (let attempt = 0; attempt < LOAD_ATTEMPTS && fd === -EAGAIN; attempt++) {
      fd = bpf(BPF_COMMANDS.progLoad, addressOf(attributes), ATTRIBUTE_BYTES);
    }
    return fd;
  };
  const fd = load(undefined);
  if (fd < 0) throw unavailable(`load the BPF program ${name}`, fd, fd === -EPERM ? '' : verifierSays(load));
  return { fd, [Symbol.dispose]: () => void close(fd) };
}

/** Loads a classifier. @throws WeftError WEFT_FAST_PATH */
export function loadClassifier(name: string, code: Uint8Array): BpfProgram {
  return loadProgram(BPF_PROG_TYPE_SCHED_CLS, 0, name, code);
}

/** Loads a program for a driver's packets (XDP). @throws WeftError WEFT_FAST_PATH */
export function loadXdp(name: string, code: Uint8Array): BpfProgram {
  return loadProgram(BPF_PROG_TYPE_XDP, BPF_XDP, name, code);
}

/** A queue that programs put records into, and this process takes them out of (BPF_MAP_TYPE_QUEUE). */
export interface BpfQueue extends Disposable {
  readonly fd: number;
  /** The oldest record, which is then gone; `undefined` when there is none. */
  take(): Uint8Array | undefined;
}

const QUEUE = 22;

/** @throws WeftError WEFT_FAST_PATH */
export function createBpfQueue(name: string, valueBytes: number, maxEntries: number): BpfQueue {
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  attributes.setUint32(0, QUEUE, true);
  attributes.setUint32(8, valueBytes, true);
  attributes.setUint32(12, maxEntries, true);
  putName(attributes, 28, name);
  const fd = bpf(BPF_COMMANDS.mapCreate, addressOf(attributes), ATTRIBUTE_BYTES);
  if (fd < 0) throw unavailable(`make the BPF map ${name}`, fd);
  const value = sharedBytes(valueBytes);
  const entry = sharedBytes(ATTRIBUTE_BYTES);
  entry.setUint32(0, fd, true);
  putAddress(entry, 16, value);
  return {
    fd,
    take: () =>
      bpf(BPF_COMMANDS.mapLookupAndDelete, addressOf(entry), ATTRIBUTE_BYTES) < 0
        ? undefined
        : new Uint8Array(value.buffer).slice(),
    [Symbol.dispose]: () => void close(fd),
  };
}

/**
 * Runs a program at a tracepoint of the kernel, until disposed; it may read the kernel's memory, for which the kernel wants CAP_BPF
 * and CAP_PERFMON, or CAP_SYS_ADMIN.
 * @throws WeftError WEFT_FAST_PATH
 */
export function attachRawTracepoint(tracepoint: string, name: string, code: Uint8Array): Disposable {
  using program = loadProgram(BPF_PROG_TYPE_RAW_TRACEPOINT, 0, name, code);
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  putAddress(attributes, 0, copyOf(new TextEncoder().encode(`${tracepoint}\0`)));
  attributes.setUint32(8, program.fd, true);
  const fd = bpf(BPF_COMMANDS.rawTracepointOpen, addressOf(attributes), ATTRIBUTE_BYTES);
  if (fd < 0) throw unavailable(`attach a BPF program to the tracepoint ${tracepoint}`, fd);
  return { [Symbol.dispose]: () => void close(fd) };
}

function verifierSays(load: (log: DataView) => number): string {
  const log = sharedBytes(VERIFIER_LOG_BYTES);
  const fd = load(log);
  if (fd >= 0) close(fd);
  const text = Buffer.from(log.buffer);
  const said = text.toString('utf8', 0, text.indexOf(0)).trim().split('\n').slice(-4).join(' | ');
  return said === '' ? '' : ` (the verifier says: ${said})`;
}

/** A place at a device: numbers of `enum bpf_attach_type` and `enum bpf_link_type`, and flags. */
interface Hook {
  readonly attachType: number;
  readonly linkType: number;
  readonly flags: number;
  readonly title: string;
}

const LINK_TYPE_TCX = 11;
const LINK_TYPE_XDP = 6;
/** In the driver, or not at all: what the kernel does in its place comes after GRO. */
const XDP_FLAGS_DRV_MODE = 4;
const HOOKS = {
  ingress: { attachType: 46, linkType: LINK_TYPE_TCX, flags: 0, title: 'tcx ingress' },
  egress: { attachType: 47, linkType: LINK_TYPE_TCX, flags: 0, title: 'tcx egress' },
  xdp: { attachType: BPF_XDP, linkType: LINK_TYPE_XDP, flags: XDP_FLAGS_DRV_MODE, title: 'XDP in its driver' },
} as const satisfies Record<string, Hook>;

export interface Attachment extends Disposable {
  /** It was there already, from an earlier process, and no packet has missed the change of programs. */
  readonly isTakenOver: boolean;
}

/**
 * Lets a program see what a device receives or is given to send, until disposed.
 * @param pin where the attachment is pinned in a bpffs: it then ends with that file. What is there for the same device and side gets
 * the program in place of the one it has, in one step; anything else ends and is replaced.
 * @throws WeftError WEFT_FAST_PATH
 */
export function attachTcx(program: BpfProgram, device: number, side: 'ingress' | 'egress', pin?: string): Attachment {
  return attachTo(HOOKS[side], program, device, pin);
}

/**
 * As {@link attachTcx}, for what the device's driver has received (XDP).
 * @param earlierPins where earlier processes may have pinned theirs: a device has one, so that it is taken over from there.
 * @throws WeftError WEFT_FAST_PATH
 */
export function attachXdp(
  program: BpfProgram,
  device: number,
  pin?: string,
  earlierPins: readonly string[] = [],
): Attachment {
  return attachTo(HOOKS.xdp, program, device, pin, earlierPins);
}

function attachTo(
  hook: Hook,
  program: BpfProgram,
  device: number,
  pin: string | undefined,
  earlierPins: readonly string[] = [],
): Attachment {
  for (const path of pin === undefined ? [] : [pin, ...earlierPins]) {
    const held = getPinned(path);
    if (held < 0) continue;
    using stack = new DisposableStack();
    stack.defer(() => void close(held));
    if (pin !== undefined && isSuchLink(held, device, hook) && updateLink(held, program) >= 0) {
      if (path !== pin) renameSync(path, pin);
      const kept = stack.move();
      return { isTakenOver: true, [Symbol.dispose]: () => kept.dispose() };
    }
    endPinned(path);
  }
  const fd = createLink(program, device, hook);
  if (fd < 0) throw unavailable(`attach a BPF program to device ${device} (${hook.title})`, fd);
  try {
    if (pin !== undefined) pinAs(fd, pin);
  } catch (error) {
    close(fd);
    throw error;
  }
  return { isTakenOver: false, [Symbol.dispose]: () => void close(fd) };
}

/** `struct bpf_link_info`; the device is 0 once it is gone. XDP's says no more than that. */
function isSuchLink(fd: number, device: number, { attachType, linkType }: Hook): boolean {
  const info = infoOf(fd);
  if (info === undefined || info.getUint32(0, true) !== linkType || info.getUint32(16, true) !== device) return false;
  return linkType === LINK_TYPE_XDP || info.getUint32(20, true) === attachType;
}

function updateLink(link: number, program: BpfProgram): number {
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  attributes.setUint32(0, link, true);
  attributes.setUint32(4, program.fd, true);
  return bpf(BPF_COMMANDS.linkUpdate, addressOf(attributes), ATTRIBUTE_BYTES);
}

function pathAttributes(path: string): DataView<SharedArrayBuffer> {
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  putAddress(attributes, 0, copyOf(new TextEncoder().encode(`${path}\0`)));
  return attributes;
}

/** A descriptor of what is pinned there, or −errno. */
function getPinned(path: string): number {
  return bpf(BPF_COMMANDS.objGet, addressOf(pathAttributes(path)), ATTRIBUTE_BYTES);
}

/**
 * Removes what is pinned there. An attachment ends at once: without its pin alone the kernel ends it some time later, and until then a
 * device takes no other XDP program; and other processes may hold it.
 * @throws Error of the file system.
 */
export function endPinned(path: string): void {
  const fd = getPinned(path);
  if (fd >= 0) {
    const attributes = sharedBytes(ATTRIBUTE_BYTES);
    attributes.setUint32(0, fd, true);
    // What is no attachment is refused.
    bpf(BPF_COMMANDS.linkDetach, addressOf(attributes), ATTRIBUTE_BYTES);
    close(fd);
  }
  rmSync(path, { force: true });
}

/** In place of whatever is there. @throws WeftError WEFT_FAST_PATH */
function pinAs(fd: number, path: string): void {
  rmSync(path, { force: true });
  const attributes = pathAttributes(path);
  attributes.setUint32(8, fd, true);
  const result = bpf(BPF_COMMANDS.objPin, addressOf(attributes), ATTRIBUTE_BYTES);
  if (result < 0) throw unavailable(`pin a BPF object as ${path}`, result);
}

/** What the kernel says of a map or an attachment; `undefined` when it does not. */
function infoOf(fd: number): DataView | undefined {
  const info = sharedBytes(INFO_BYTES);
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  attributes.setUint32(0, fd, true);
  attributes.setUint32(4, INFO_BYTES, true);
  putAddress(attributes, 8, info);
  return bpf(BPF_COMMANDS.objGetInfoByFd, addressOf(attributes), ATTRIBUTE_BYTES) < 0 ? undefined : info;
}

/** A descriptor, or an error number below 0. */
function createLink(program: BpfProgram, device: number, { attachType, flags }: Hook): number {
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  attributes.setUint32(0, program.fd, true);
  attributes.setUint32(4, device, true);
  attributes.setUint32(8, attachType, true);
  attributes.setUint32(12, flags, true);
  return bpf(BPF_COMMANDS.linkCreate, addressOf(attributes), ATTRIBUTE_BYTES);
}

/** No device has this index. */
const NO_DEVICE = 0x7fff_ffff;
/** r0 = TCX_NEXT; exit */
const DO_NOTHING = Uint8Array.of(0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x95, 0, 0, 0, 0, 0, 0, 0);

/**
 * Tries all that the fast path asks of the kernel and of the container runtime, but on no device: nothing on the host changes.
 * @throws WeftError WEFT_FAST_PATH as the agent would get it.
 */
export function tryFastPath(): void {
  using _hash = createBpfMap({ kind: 'hash', name: 'weft_try', keyBytes: 4, valueBytes: 8, maxEntries: 1 });
  using _trie = createBpfMap({ kind: 'lpm-trie', name: 'weft_try', keyBytes: 8, valueBytes: 8, maxEntries: 1 });
  using program = loadClassifier('weft_try', DO_NOTHING);
  const result = createLink(program, NO_DEVICE, HOOKS.egress);
  if (result !== -ENODEV) throw unavailable('attach BPF programs to devices (tcx)', result);
}
