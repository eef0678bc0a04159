import type { OpResult } from '../desired/kernel.ts';
import type { Op } from '../desired/op.ts';
import type { ActualWireguard, ActualWireguardPeer, WireguardKey, WireguardPeer } from '../desired/state.ts';
import { describeError, WeftError } from '../errors.ts';
import { formatEndpoint, formatPrefix, type IpAddr, parseAddr, parsePrefix } from '../ip/address.ts';
import { Secret } from '../secret.ts';
import { run } from './run.ts';

/**
 * Keys and peers of WireGuard devices through `wg` (wireguard-tools). Secrets go to it by its standard input and come from its
 * standard output, neither of which is in a log; they are never arguments, which everybody on the host can read.
 */

export interface WireguardOptions {
  readonly netns: string | undefined;
  readonly signal: AbortSignal;
}

const TIMEOUT_MS = 30_000;
/** What one command line holds with a wide margin: a public key and the words beside it have 60 bytes. */
const DELETIONS_AT_ONCE = 1_000;
/**
 * `wg` opens the file it is given by name, and what Node.js makes standard input is a socket, which has no name: `cat` turns it
 * into a pipe. /dev/stdin would be shorter, but udev makes it.
 */
const ADD_CONFIG = 'cat | wg addconf "$0" /proc/self/fd/0';

/** The second is of a kernel whose module is not loaded. */
const NO_DEVICE = /No such device|Protocol not supported/;

type WireguardOp = Extract<Op, { type: 'wireguard-set' | 'wireguard-peer-set' | 'wireguard-peer-delete' }>;

/** Operations on one device in a row are one `wg`: when it fails, all of them have. */
export async function applyWireguard(ops: readonly Op[], options: WireguardOptions): Promise<OpResult[]> {
  const results: OpResult[] = [];
  for (let from = 0; from < ops.length; ) {
    const first = wireguardOp(ops[from]!);
    const isDeletion = first.type === 'wireguard-peer-delete';
    let to = from + 1;
    for (; to < ops.length && to - from < DELETIONS_AT_ONCE; to++) {
      const next = wireguardOp(ops[to]!);
      if (linkOf(next) !== linkOf(first) || (next.type === 'wireguard-peer-delete') !== isDeletion) break;
    }
    const some = ops.slice(from, to).map(wireguardOp);
    const error = await apply(linkOf(first), some, isDeletion, options);
    results.push(...some.map((op): OpResult => (error === undefined ? { op, ok: true } : { op, ok: false, error })));
    from = to;
  }
  return results;
}

/** What there is of these devices; one that goes meanwhile is left out. @throws WeftError WEFT_KERNEL_STATE, WEFT_COMMAND_…. */
export async function readWireguard(
  links: readonly string[],
  { netns, signal }: WireguardOptions,
): Promise<ActualWireguard[]> {
  const found: ActualWireguard[] = [];
  for (const link of links) {
    const argv = ['wg', 'show', link, 'dump'];
    const { stdout, stderr, exitCode } = await run(argv, { netns, signal, timeoutMs: TIMEOUT_MS, okExitCodes: 'any' });
    if (exitCode === 0) found.push(parseDump(link, stdout));
    else if (!NO_DEVICE.test(stderr)) {
      if (netns !== undefined && /exec of "wg" failed/.test(stderr)) throw noTool();
      throw new WeftError(
        'WEFT_KERNEL_STATE',
        `reading the peers of ${link} with ${argv.join(' ')}: ${stderr.trim()}`,
        {
          hint: 'The agent retries. If the error persists, run the command by hand.',
        },
      );
    }
  }
  return found;
}

/** One line of the device, and one of each peer, in columns (wg(8)). Exported for its test. */
export function parseDump(link: string, text: string): ActualWireguard {
  const [device = '', ...lines] = text.split('\n').filter((line) => line !== '');
  const [, publicKey = '', listenPort] = device.split('\t');
  return {
    link,
    publicKey: publicKey === '(none)' ? undefined : (publicKey as WireguardKey),
    listenPort: Number(listenPort),
    peers: lines.map((line) => parsePeer(link, line)),
  };
}

function parsePeer(link: string, line: string): ActualWireguardPeer {
  const [publicKey, presharedKey, endpoint = '', allowedIps = '', handshake, received, sent, keepalive] =
    line.split('\t');
  const seconds = Number(handshake);
  return {
    link,
    publicKey: publicKey as WireguardKey,
    presharedKey: presharedKey === undefined || presharedKey === '(none)' ? undefined : new Secret(presharedKey),
    endpoint: parseEndpoint(endpoint),
    allowedIps: allowedIps.split(',').flatMap((text) => parsePrefix(text) ?? []),
    keepaliveSeconds: keepalive === 'off' ? 0 : Number(keepalive),
    lastHandshakeAtMs: seconds === 0 ? undefined : seconds * 1000,
    receivedBytes: Number(received),
    sentBytes: Number(sent),
  };
}

function parseEndpoint(text: string): WireguardPeer['endpoint'] | undefined {
  const [, v6, v4, port] = /^(?:\[([^\]]+)\]|([\d.]+)):(\d+)$/.exec(text) ?? [];
  const addr: IpAddr | undefined = parseAddr(v6 ?? v4 ?? '');
  return addr === undefined ? undefined : { addr, port: Number(port) };
}

/** @returns the words of the failure. */
async function apply(
  link: string,
  ops: readonly WireguardOp[],
  isDeletion: boolean,
  { netns, signal }: WireguardOptions,
): Promise<string | undefined> {
  try {
    if (isDeletion) {
      const words = ops.flatMap((op) => (op.type === 'wireguard-peer-delete' ? ['peer', op.publicKey, 'remove'] : []));
      await run(['wg', 'set', link, ...words], { netns, signal, timeoutMs: TIMEOUT_MS });
    } else {
      const stdin = ops.map(section).join('\n');
      const { stderr, exitCode } = await run(['sh', '-c', ADD_CONFIG, link], {
        ...{ netns, signal, stdin, timeoutMs: TIMEOUT_MS, okExitCodes: 'any' },
      });
      // The shell says that with this exit code; what it could not find is wg, for cat is where sh is.
      if (exitCode === 127) throw noTool();
      if (exitCode !== 0) return withoutLines(stderr);
    }
    return undefined;
  } catch (error) {
    signal.throwIfAborted();
    // Peers go with their device.
    if (isDeletion && NO_DEVICE.test(describeError(error))) return undefined;
    return describeError(error);
  }
}

/** A line that `wg` does not understand is one with a key. */
function withoutLines(stderr: string): string {
  return stderr.trim().replaceAll(/`[^']*'/g, '[...]');
}

function noTool(): WeftError {
  return new WeftError('WEFT_COMMAND_MISSING', 'could not run wg: there is no such program', {
    hint: 'On Debian: apt-get install wireguard-tools',
  });
}

/** As wg(8) reads it from a file. */
function section(op: WireguardOp): string {
  switch (op.type) {
    case 'wireguard-set': {
      const { privateKey, listenPort } = op.settings;
      return `[Interface]\nPrivateKey = ${privateKey.reveal()}\nListenPort = ${listenPort}\n`;
    }
    case 'wireguard-peer-set': {
      const { publicKey, endpoint, allowedIps, keepaliveSeconds, presharedKey } = op.peer;
      const lines = [
        '[Peer]',
        `PublicKey = ${publicKey}`,
        // All zeros takes away the one there is.
        `PresharedKey = ${presharedKey?.reveal() ?? Buffer.alloc(32).toString('base64')}`,
        `Endpoint = ${formatEndpoint(endpoint)}`,
        `AllowedIPs = ${allowedIps.map(formatPrefix).join(', ')}`,
        `PersistentKeepalive = ${keepaliveSeconds}`,
      ];
      return `${lines.join('\n')}\n`;
    }
    case 'wireguard-peer-delete':
      throw new TypeError('unreachable: a configuration deletes no peer');
  }
}

function wireguardOp(op: Op): WireguardOp {
  switch (op.type) {
    case 'wireguard-set':
    case 'wireguard-peer-set':
    case 'wireguard-peer-delete':
      return op;
    default:
      throw new TypeError(`unreachable: ${op.type} is not done by wg`);
  }
}

function linkOf(op: WireguardOp): string {
  return op.type === 'wireguard-peer-set' ? op.peer.link : op.link;
}
