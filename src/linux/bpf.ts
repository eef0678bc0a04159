/**
 * bpf(2) as far as the fast path needs it: maps, classifier programs, and their attachment to a device (tcx, Linux 6.6). What
 * is made here ends with the process: nothing is pinned, so that a stopped agent leaves no program behind.
 */
import type { BpfMap } from '../dataplane/fast-path/fast-path-tables.ts';
import { WeftError } from '../errors.ts';
import { ownStatus, whyBpfRefused } from './capabilities.ts';
import {
  BPF_COMMANDS,
  BPF_F_NO_PREALLOC,
  BPF_PROG_TYPE_SCHED_CLS,
  EAGAIN,
  EINVAL,
  ENODEV,
  ENOSYS,
  EPERM,
} from './constants.ts';
import { addressOf, bpf, close, errnoName } from './ffi.ts';

/** `union bpf_attr` as long as any command here reads it; the kernel wants the rest to be zero. */
const ATTRIBUTE_BYTES = 72;
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
  };
  const hint = hints[Math.abs(errno)];
  return new WeftError('WEFT_FAST_PATH', `failed to ${what}: ${errnoName(errno)}${detail}`, {
    ...(hint !== undefined && { hint }),
  });
}

export interface BpfMapOptions {
  readonly kind: 'hash' | 'lpm-trie';
  /** Shown by bpftool; 15 characters at most. */
  readonly name: string;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly maxEntries: number;
}

const MAP_TYPES: Readonly<Record<BpfMapOptions['kind'], number>> = { hash: 1, 'lpm-trie': 11 };

/** Makes a map whose memory is taken entry by entry. @throws WeftError WEFT_FAST_PATH */
export function createBpfMap({ kind, name, keyBytes, valueBytes, maxEntries }: BpfMapOptions): BpfMap {
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  attributes.setUint32(0, MAP_TYPES[kind], true);
  attributes.setUint32(4, keyBytes, true);
  attributes.setUint32(8, valueBytes, true);
  attributes.setUint32(12, maxEntries, true);
  attributes.setUint32(16, BPF_F_NO_PREALLOC, true);
  putName(attributes, 28, name);
  const fd = bpf(BPF_COMMANDS.mapCreate, addressOf(attributes), ATTRIBUTE_BYTES);
  if (fd < 0) throw unavailable(`make the BPF map ${name}`, fd);

  const keyMemory = sharedBytes(keyBytes);
  const valueMemory = sharedBytes(valueBytes);
  const entry = sharedBytes(ATTRIBUTE_BYTES);
  entry.setUint32(0, fd, true);
  putAddress(entry, 8, keyMemory);
  // The key after none is the first.
  const firstKey = sharedBytes(keyBytes);
  const firstEntry = sharedBytes(ATTRIBUTE_BYTES);
  firstEntry.setUint32(0, fd, true);
  putAddress(firstEntry, 16, firstKey);
  const operate = (command: number, key: Uint8Array, flags: number): number => {
    new Uint8Array(keyMemory.buffer).set(key);
    // Removing takes no value, and the kernel insists on that.
    if (command === BPF_COMMANDS.mapDelete) entry.setBigUint64(16, 0n, true);
    else putAddress(entry, 16, valueMemory);
    entry.setBigUint64(24, BigInt(flags), true);
    return bpf(command, addressOf(entry), ATTRIBUTE_BYTES);
  };
  const put = (key: Uint8Array, value: Uint8Array, flags: number): number => {
    new Uint8Array(valueMemory.buffer).set(value);
    return operate(BPF_COMMANDS.mapUpdate, key, flags);
  };
  return {
    fd,
    update: (key, value) => put(key, value, ANY),
    add: (key, value) => put(key, value, NOEXIST),
    remove: (key) => operate(BPF_COMMANDS.mapDelete, key, ANY),
    lookup: (key, value) => {
      const result = operate(BPF_COMMANDS.mapLookup, key, ANY);
      if (result >= 0) value.set(new Uint8Array(valueMemory.buffer));
      return result;
    },
    first: (key) => {
      const result = bpf(BPF_COMMANDS.mapGetNextKey, addressOf(firstEntry), ATTRIBUTE_BYTES);
      if (result >= 0) key.set(new Uint8Array(firstKey.buffer));
      return result;
    },
    [Symbol.dispose]: () => void close(fd),
  };
}

export interface BpfProgram extends Disposable {
  readonly fd: number;
}

/**
 * Loads a classifier. It is declared to be under the GPL, one of its licences, because the kernel keeps some helpers
 * (bpf_fib_lookup) for such programs.
 * @throws WeftError WEFT_FAST_PATH, with the end of the verifier's log.
 */
export function loadClassifier(name: string, code: Uint8Array): BpfProgram {
  const instructions = copyOf(code);
  const licence = copyOf(new TextEncoder().encode('GPL\0'));
  const load = (log: DataView | undefined): number => {
    const attributes = sharedBytes(ATTRIBUTE_BYTES);
    attributes.setUint32(0, BPF_PROG_TYPE_SCHED_CLS, true);
    attributes.setUint32(4, code.length / 8, true);
    putAddress(attributes, 8, instructions);
    putAddress(attributes, 16, licence);
    if (log !== undefined) {
      attributes.setUint32(24, 1, true);
      attributes.setUint32(28, log.byteLength, true);
      putAddress(attributes, 32, log);
    }
    putName(attributes, 48, name);
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

function verifierSays(load: (log: DataView) => number): string {
  const log = sharedBytes(VERIFIER_LOG_BYTES);
  const fd = load(log);
  if (fd >= 0) close(fd);
  const text = Buffer.from(log.buffer);
  const said = text.toString('utf8', 0, text.indexOf(0)).trim().split('\n').slice(-4).join(' | ');
  return said === '' ? '' : ` (the verifier says: ${said})`;
}

/** `enum bpf_attach_type` */
const TCX = { ingress: 46, egress: 47 } as const;

/** Lets a program see what a device receives or is given to send, until disposed. @throws WeftError WEFT_FAST_PATH */
export function attachTcx(program: BpfProgram, device: number, side: keyof typeof TCX): Disposable {
  const fd = createLink(program, device, side);
  if (fd < 0) throw unavailable(`attach a BPF program to device ${device} (tcx ${side})`, fd);
  return { [Symbol.dispose]: () => void close(fd) };
}

/** A descriptor, or an error number below 0. */
function createLink(program: BpfProgram, device: number, side: keyof typeof TCX): number {
  const attributes = sharedBytes(ATTRIBUTE_BYTES);
  attributes.setUint32(0, program.fd, true);
  attributes.setUint32(4, device, true);
  attributes.setUint32(8, TCX[side], true);
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
  const result = createLink(program, NO_DEVICE, 'egress');
  if (result !== -ENODEV) throw unavailable('attach BPF programs to devices (tcx)', result);
}
