import { existsSync, mkdirSync } from 'node:fs';
import { tunRemedy } from '../config/tun-remedy.ts';
import { WeftError } from '../errors.ts';
import { CAP_NET_ADMIN, hasCapability } from './capabilities.ts';
import {
  EACCES,
  EBUSY,
  EINVAL,
  ENOENT,
  ENOTTY,
  EPERM,
  IFF_NO_PI,
  IFF_TUN,
  IFF_VNET_HDR,
  IFNAMSIZ,
  IFREQ_BYTES,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_USO4,
  TUN_F_USO6,
  TUNGETIFF,
  TUNSETIFF,
  TUNSETOFFLOAD,
  TUNSETOWNER,
  TUNSETPERSIST,
} from './constants.ts';
import { addressOf, close, errnoName, ioctl, mknodCharacter, open } from './ffi.ts';
import { describeHolders, tunHolders } from './proc-net.ts';

const DEVICE = '/dev/net/tun';
/** Documentation/admin-guide/devices.txt: misc major 10, minor 200. */
const TUN_MAJOR = 10;
const TUN_MINOR = 200;

/** Packets without a frame, each behind a virtio-net header. */
const KIND = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;

export interface TunDevice extends Disposable {
  readonly fd: number;
  readonly name: string;
  /** Whether UDP super-packets pass (USO, Linux 6.2 and later). */
  readonly udpSegmentation: boolean;
  /**
   * Persistent: link, addresses and routes outlive the process; otherwise they end with it. As it was until this is called;
   * a new device is not persistent.
   * @throws WeftError WEFT_TUN_FAILED
   */
  setPersistent(persistent: boolean): void;
}

export interface OpenTunOptions {
  /** 1 … 15 characters. */
  readonly name: string;
  /** Told what was done to the host beyond opening the device, such as making the device node. */
  readonly onNotice?: (text: string) => void;
}

/**
 * Attaches to the TUN device `name`, which is made when it does not exist. Packets carry a virtio-net header; checksum, TCP
 * and, where the kernel can, UDP segmentation are left to us (Documentation/networking/tuntap.rst).
 * @throws WeftError WEFT_TUN_MISSING, WEFT_TUN_DENIED, WEFT_TUN_BUSY, WEFT_TUN_FAILED
 */
export function openTunDevice({ name, onNotice }: OpenTunOptions): TunDevice {
  if (name.length === 0 || name.length >= IFNAMSIZ) {
    throw new WeftError('WEFT_USAGE', `TUN device name "${name}" must have 1 to ${IFNAMSIZ - 1} characters`);
  }
  const fd = openNode(onNotice);
  try {
    const request = new Uint8Array(new SharedArrayBuffer(IFREQ_BYTES));
    request.set(new TextEncoder().encode(name));
    new DataView(request.buffer).setUint16(IFNAMSIZ, KIND, true);
    // The kernel lets anybody attach to a device that is there and has no owner; what comes after would fail.
    if (!hasCapability(CAP_NET_ADMIN)) throw attachError(name, EPERM);
    const attached = ioctl(fd, TUNSETIFF, addressOf(request));
    if (attached < 0) throw attachError(name, -attached);
    return attachedDevice(fd, name);
  } catch (error) {
    close(fd);
    throw error;
  }
}

/**
 * The TUN device behind a descriptor that another process has opened, as this one would have; `undefined`: it is none, of another
 * kind, or its device is gone. The descriptor stays open then.
 * @throws WeftError WEFT_TUN_FAILED
 */
export function adoptTunDevice(fd: number): TunDevice | undefined {
  const request = new Uint8Array(new SharedArrayBuffer(IFREQ_BYTES));
  if (ioctl(fd, TUNGETIFF, addressOf(request)) < 0) return undefined;
  const flags = new DataView(request.buffer).getUint16(IFNAMSIZ, true);
  if ((flags & KIND) !== KIND) return undefined;
  const name = request.slice(0, request.indexOf(0));
  return attachedDevice(fd, new TextDecoder().decode(name));
}

function attachedDevice(fd: number, name: string): TunDevice {
  const basic = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  let udpSegmentation = true;
  let offload = ioctl(fd, TUNSETOFFLOAD, basic | TUN_F_USO4 | TUN_F_USO6);
  if (offload === -EINVAL) {
    udpSegmentation = false;
    offload = ioctl(fd, TUNSETOFFLOAD, basic);
  }
  if (offload < 0) throw tunFailed(name, 'set segmentation offloads (TUNSETOFFLOAD)', offload);
  // Without an owner anybody who may open /dev/net/tun could attach to a persistent device that has no process.
  const owned = ioctl(fd, TUNSETOWNER, process.geteuid?.() ?? 0);
  if (owned < 0) throw tunFailed(name, 'set its owner (TUNSETOWNER)', owned);
  const setPersistent = (persistent: boolean): void => {
    const result = ioctl(fd, TUNSETPERSIST, persistent ? 1 : 0);
    if (result < 0) throw tunFailed(name, 'set whether it persists (TUNSETPERSIST)', result);
  };
  return { fd, name, udpSegmentation, setPersistent, [Symbol.dispose]: () => void close(fd) };
}

/** Kubernetes sets it in every container. */
const inPod = (): boolean => process.env.KUBERNETES_SERVICE_HOST !== undefined;

function openNode(onNotice: ((text: string) => void) | undefined): number {
  const flags = O_RDWR | O_NONBLOCK | O_CLOEXEC;
  let fd = open(DEVICE, flags);
  if (fd === -ENOENT) {
    const made = makeNode();
    if (made !== undefined) {
      throw new WeftError(
        'WEFT_TUN_MISSING',
        `failed to open TUN device: open ${DEVICE}: no such file or directory; making it (mknod c ${TUN_MAJOR} ${TUN_MINOR}) failed with ${made}`,
        { hint: tunRemedy('missing', inPod()) },
      );
    }
    onNotice?.(`${DEVICE} did not exist; created it (character device ${TUN_MAJOR}:${TUN_MINOR})`);
    fd = open(DEVICE, flags);
  }
  if (fd >= 0) return fd;
  const came = errnoName(fd);
  if (fd === -EPERM || fd === -EACCES) {
    throw new WeftError('WEFT_TUN_DENIED', `failed to open TUN device: open ${DEVICE}: ${came}`, {
      hint: `The device node exists but access is denied. ${tunRemedy('device-denied', inPod())}`,
    });
  }
  throw new WeftError('WEFT_TUN_MISSING', `failed to open TUN device: open ${DEVICE}: ${came}`, {
    hint: `The node does not belong to the TUN driver, or the kernel has no TUN driver. ${tunRemedy('missing', inPod())}`,
  });
}

/** What became of the device node; never an error, for a backend may do without. */
export type TunNode =
  | { readonly status: 'present' | 'made' }
  | { readonly status: 'missing'; readonly reason: string; readonly remedy: string };

/** Makes {@link DEVICE} where there is none: what an init container may do so that the agent needs no CAP_MKNOD. */
export function ensureTunNode(): TunNode {
  if (existsSync(DEVICE)) return { status: 'present' };
  const reason = makeNode();
  if (reason === undefined) return { status: 'made' };
  return {
    status: 'missing',
    reason: `mknod ${DEVICE} c ${TUN_MAJOR} ${TUN_MINOR}: ${reason}`,
    remedy: tunRemedy('missing', inPod()),
  };
}

/** Returns what went wrong, or undefined. */
function makeNode(): string | undefined {
  try {
    mkdirSync('/dev/net', { recursive: true, mode: 0o755 });
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const result = mknodCharacter(DEVICE, 0o666, TUN_MAJOR, TUN_MINOR);
  return result < 0 ? errnoName(result) : undefined;
}

function attachError(name: string, errno: number): WeftError {
  if (errno === EBUSY) {
    const holders = describeHolders(tunHolders(name));
    return new WeftError(
      'WEFT_TUN_BUSY',
      `failed to attach to TUN device ${name}: it is in use by ${holders} (EBUSY)`,
      {
        hint: 'Stop the other flanneld or weft of this network first. Another network on this host needs a Network, a Port and a --subnet-file of its own',
      },
    );
  }
  if (errno === EPERM) {
    return new WeftError('WEFT_TUN_DENIED', `failed to attach to TUN device ${name}: operation not permitted`, {
      hint: `The capability CAP_NET_ADMIN is missing. ${tunRemedy('capability', inPod())}`,
    });
  }
  if (errno === ENOTTY) {
    return new WeftError(
      'WEFT_TUN_MISSING',
      `failed to attach to TUN device ${name}: ${DEVICE} is not a TUN device (ENOTTY)`,
      {
        hint: `${DEVICE} is something else: remove it. ${tunRemedy('missing', inPod())}`,
      },
    );
  }
  if (errno === EINVAL) {
    return new WeftError('WEFT_TUN_FAILED', `failed to attach to TUN device ${name}: ioctl TUNSETIFF: EINVAL`, {
      hint: `A device ${name} of another type exists (ip -d link show ${name}); remove or rename it`,
    });
  }
  return tunFailed(name, 'attach (TUNSETIFF)', -errno);
}

function tunFailed(name: string, attempted: string, result: number): WeftError {
  return new WeftError('WEFT_TUN_FAILED', `TUN device ${name}: failed to ${attempted}: ${errnoName(result)}`);
}
