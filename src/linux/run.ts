import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { hasErrno } from '../errno.ts';
import { WeftError } from '../errors.ts';
import { withoutNodeVariables } from '../node-variables.ts';
import { trace } from '../trace.ts';
import { insideNamespace } from './network-namespaces.ts';

/**
 * The only place where weft starts other programs. Programs are started directly, never through a shell, with LC_ALL=C
 * (their messages are read by code) and with the system directories at the end of PATH (`ip` is in /usr/sbin, which is
 * not in everybody's PATH).
 */

export interface CommandOptions {
  /** The arguments must not be in a log. */
  readonly hasSecrets?: boolean;
  /** Ends the child: SIGTERM, then SIGKILL after `killGraceMs`. */
  readonly signal?: AbortSignal | undefined;
  /** Default {@link KILL_GRACE_MS}. */
  readonly killGraceMs?: number | undefined;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly cwd?: string | undefined;
  /** Name of a network namespace (`ip netns`) to run in. `ip netns exec` replaces itself: the pid is the command's. */
  readonly netns?: string | undefined;
  /** What opens the network namespace to run in, for one that has no name. */
  readonly netnsPath?: string | undefined;
}

export interface RunOptions extends CommandOptions {
  /** Written to standard input, which is then closed. Without it standard input is /dev/null. */
  readonly stdin?: string | Uint8Array | undefined;
  readonly timeoutMs?: number | undefined;
  /** Exit codes that are not an error; the default is [0]. */
  readonly okExitCodes?: readonly number[] | 'any' | undefined;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

/** `tail`: drained, and the last {@link TAIL_BYTES} kept for {@link Child.tail}. A number is a file descriptor of ours. */
export type OutputMode = 'pipe' | 'tail' | 'ignore' | 'inherit' | number;

export interface StartOptions extends CommandOptions {
  /** Default `ignore`. */
  readonly stdin?: 'pipe' | 'ignore' | undefined;
  /** Default `pipe`: somebody must read it, or the child stops when the pipe is full. */
  readonly stdout?: OutputMode | undefined;
  /** Default `tail`. */
  readonly stderr?: OutputMode | undefined;
  /**
   * Goes on when this process ends, in a session of its own (a Ctrl-C does not reach it); for that its output must go to a
   * descriptor or `ignore`. Disposing and `signal` still end it.
   */
  readonly detached?: boolean | undefined;
  /** Descriptors of ours that the child has as well, from number 3 on. */
  readonly descriptors?: readonly number[] | undefined;
  /**
   * The kernel ends it when this process is gone, however that ended: for programs that hardly ever write to their pipe. By SIGKILL,
   * or the signal that is named. Takes setpriv(1) of util-linux; without it, or with that of BusyBox, nothing is different. Start it
   * from the main thread, whose end it is that counts (prctl(2)).
   */
  readonly endsWithThisProcess?: boolean | NodeJS.Signals | undefined;
}

export interface Exit {
  /** `undefined` when a signal ended it. */
  readonly code: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
}

/** A program that goes on running. Disposing ends it and waits until it is gone. */
export interface Child extends AsyncDisposable {
  readonly argv: readonly string[];
  readonly pid: number;
  readonly stdin: Writable | undefined;
  /** Present in mode `pipe`. See {@link lines}. */
  readonly stdout: Readable | undefined;
  readonly stderr: Readable | undefined;
  /** Settles once the child is gone and its output is read or closed; never rejects. */
  readonly exited: Promise<Exit>;
  /** The last output of the streams in mode `tail`, for messages about an unexpected end. */
  tail(): string;
  /** False when it is already gone. The pid is never signalled after that, since it may belong to somebody else. */
  kill(signal?: NodeJS.Signals): boolean;
}

export const KILL_GRACE_MS = 2_000;
export const TAIL_BYTES = 8_192;
/** How long output is still read from a child that has ended because it was told to. */
const LAST_OUTPUT_MS = 200;

const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Which Debian package to install for a command; a command not listed is in the package of its own name. */
const DEBIAN_PACKAGES: Readonly<Record<string, string>> = {
  bridge: 'iproute2',
  conntrack: 'conntrack',
  etcd: 'etcd-server',
  etcdctl: 'etcd-client',
  ip: 'iproute2',
  ip6tables: 'iptables',
  'ip6tables-restore': 'iptables',
  'ip6tables-save': 'iptables',
  'ip6tables-legacy-save': 'iptables',
  'iptables-legacy-save': 'iptables',
  'iptables-restore': 'iptables',
  'iptables-save': 'iptables',
  modprobe: 'kmod',
  nft: 'nftables',
  nsenter: 'util-linux',
  ping: 'iputils-ping',
  ss: 'iproute2',
  sysctl: 'procps',
  tc: 'iproute2',
  unshare: 'util-linux',
  wg: 'wireguard-tools',
};

/**
 * Runs a program to its end.
 *
 * @throws WeftError WEFT_COMMAND_MISSING when it is not installed; WEFT_COMMAND_FAILED when it ends with another exit
 *   code than `okExitCodes`, by a signal, or not within `timeoutMs`. The reason of `signal` when that fired.
 */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const startedAt = performance.now();
  let outcome = 'did not start';
  const process_ = spawnProcess(argv, options, [options.stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe']);
  const exited = exitOf(process_, argv, options);
  const stdout = collect(process_.stdout);
  const stderr = collect(process_.stderr);
  let timedOut = false;
  let killTimer: NodeJS.Timeout | undefined;
  const terminate = () => {
    process_.kill('SIGTERM');
    killTimer ??= setTimeout(() => {
      process_.kill('SIGKILL');
      // A program that it has started and left behind may hold its output open for ever.
      process_.stdout?.destroy();
      process_.stderr?.destroy();
    }, options.killGraceMs ?? KILL_GRACE_MS);
  };
  const timer =
    options.timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          terminate();
        }, options.timeoutMs);
  options.signal?.addEventListener('abort', terminate, { once: true });
  // A child that does not read its input closes the pipe: its exit code says more than our EPIPE.
  process_.stdin?.on('error', () => {});
  process_.stdin?.end(options.stdin);
  try {
    const exit = await exited;
    outcome = exit.code === undefined ? `ended by ${exit.signal}` : `exit code ${exit.code}`;
    options.signal?.throwIfAborted();
    if (timedOut) {
      throw new WeftError(
        'WEFT_COMMAND_FAILED',
        `${shown(argv, options)}: did not finish within ${options.timeoutMs} ms`,
        {
          hint: outputHint(stderr()),
        },
      );
    }
    const ok = options.okExitCodes ?? [0];
    if (exit.code === undefined || (ok !== 'any' && !ok.includes(exit.code))) {
      throw failure(argv, options, exit, stderr() || stdout());
    }
    return { stdout: stdout(), stderr: stderr(), exitCode: exit.code };
  } finally {
    clearTimeout(timer);
    clearTimeout(killTimer);
    options.signal?.removeEventListener('abort', terminate);
    const words = options.hasSecrets ? argv.slice(0, 1) : argv;
    trace(4, () => `Ran ${shown(words, options)}: ${outcome} after ${(performance.now() - startedAt).toFixed(1)} ms`);
  }
}

/**
 * Starts a program that goes on running; resolves once it runs. It is also ended when this process exits by itself (without
 * `endsWithThisProcess` it outlives a SIGKILL of this process until it next writes to its pipe).
 *
 * @throws WeftError WEFT_COMMAND_MISSING, WEFT_COMMAND_FAILED when it cannot be started. That a command is missing *in a
 *   namespace* shows in its exit, since `ip netns exec` is what was started.
 */
export async function start(argv: readonly string[], options: StartOptions = {}): Promise<Child> {
  options.signal?.throwIfAborted();
  const modes = [options.stdout ?? 'pipe', options.stderr ?? 'tail'] as const;
  const stdio = modes.map((mode) => (mode === 'tail' ? 'pipe' : mode));
  const detached = options.detached ?? false;
  if (detached && (stdio.includes('pipe') || options.stdin === 'pipe')) {
    throw new TypeError(`start ${argv[0]}: a detached program cannot write to a pipe of ours`);
  }
  const process_ = spawnProcess(
    argv,
    options,
    [options.stdin ?? 'ignore', ...stdio, ...(options.descriptors ?? [])],
    detached,
    await underDeathSignal(options.endsWithThisProcess),
  );
  const streams = [process_.stdout, process_.stderr] as const;
  const exited = exitOf(process_, argv, options);
  // A failure to start is reported by the rejection below.
  exited.catch(() => {});
  const tails = modes.map((mode, i) => (mode === 'tail' ? keepTail(streams[i]) : () => ''));
  process_.stdin?.on('error', () => {});
  if (process_.pid === undefined) {
    await exited;
    throw new Error(`unreachable: ${argv[0]} has ended without a pid`);
  }
  if (detached) process_.unref();
  else endWithThisProcess(process_);

  const dispose = async (): Promise<void> => {
    // Somebody waits now, also for a detached program: this process must not run out of things to do before it is gone.
    process_.ref();
    // A program that our child has started and left behind may hold its output open for ever.
    const close = (): void => {
      for (const stream of streams) stream?.destroy();
    };
    const release = (): void => void setTimeout(close, LAST_OUTPUT_MS).unref();
    if (process_.exitCode === null && process_.signalCode === null) process_.once('exit', release);
    else release();
    if (!process_.kill('SIGTERM')) return void (await exited);
    const timer = setTimeout(() => process_.kill('SIGKILL'), options.killGraceMs ?? KILL_GRACE_MS);
    // Output that nobody will read must not keep `close` from coming.
    for (const stream of streams) stream?.resume();
    try {
      await exited;
    } finally {
      clearTimeout(timer);
    }
  };
  const onAbort = () => void dispose().catch(() => {});
  options.signal?.addEventListener('abort', onAbort, { once: true });
  void exited.then(() => options.signal?.removeEventListener('abort', onAbort));

  return {
    argv,
    pid: process_.pid,
    stdin: process_.stdin ?? undefined,
    stdout: modes[0] === 'pipe' ? (process_.stdout ?? undefined) : undefined,
    stderr: modes[1] === 'pipe' ? (process_.stderr ?? undefined) : undefined,
    exited,
    tail: () => tails.map((tail) => tail()).join(''),
    kill: (signal) => {
      // Who ends a detached program waits for its exit: until then this process must not run out of things to do.
      process_.ref();
      return process_.kill(signal ?? 'SIGTERM');
    },
    [Symbol.asyncDispose]: dispose,
  };
}

/**
 * The lines of a stream, without their ends; an unfinished last line counts. Ends with the stream, also when that is over
 * before anybody reads, or is destroyed meanwhile (node:readline waits for ever then). Leaving the loop leaves the stream open.
 */
export async function* lines(stream: Readable): AsyncGenerator<string, void, undefined> {
  if (stream.readableEnded || stream.destroyed) return;
  const decoder = new TextDecoder();
  let unfinished = '';
  try {
    for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
      const parts = (unfinished + decoder.decode(chunk as Uint8Array, { stream: true })).split('\n');
      unfinished = parts.pop() ?? '';
      for (const part of parts) yield withoutReturn(part);
    }
  } catch (error) {
    if (!hasErrno(error, 'ERR_STREAM_PREMATURE_CLOSE')) throw error;
  }
  unfinished += decoder.decode();
  if (unfinished !== '') yield withoutReturn(unfinished);
}

function withoutReturn(line: string): string {
  return line.endsWith('\r') ? line.slice(0, -1) : line;
}

/**
 * Out of descriptors, the child has no streams at all and says so by an `error` in the next turn: a listener is there from the
 * start, whatever the caller does first. @throws WeftError WEFT_COMMAND_FAILED
 */
function spawnProcess(
  argv: readonly string[],
  options: CommandOptions,
  stdio: ('pipe' | 'ignore' | 'inherit' | number)[],
  detached = false,
  under: readonly string[] = [],
): ChildProcess {
  const full = options.netns === undefined ? argv : ['ip', 'netns', 'exec', options.netns, ...argv];
  const [command, ...args] = [...under, ...full];
  if (command === undefined) throw new TypeError('run: empty command');
  const env = { ...withoutNodeVariables(process.env), LC_ALL: 'C', ...options.env, PATH: searchPath(options) };
  const cwd = options.cwd === undefined ? {} : { cwd: options.cwd };
  let child: ChildProcess;
  try {
    // A process belongs to the network namespace of the thread that starts it.
    const spawned = (): ChildProcess => spawn(command, args, { env, stdio, detached, ...cwd });
    child = options.netnsPath === undefined ? spawned() : insideNamespace(options.netnsPath, spawned);
  } catch (error) {
    throw notStarted(argv, options, error);
  }
  child.on('error', () => {});
  return child;
}

let deathSignal: Promise<boolean> | undefined;

async function underDeathSignal(wish: StartOptions['endsWithThisProcess'] = false): Promise<readonly string[]> {
  if (wish === false || !(await canSetDeathSignal())) return [];
  return ['setpriv', '--pdeathsig', wish === true ? 'SIGKILL' : wish];
}

/** BusyBox has a program of the same name without the option. */
function canSetDeathSignal(): Promise<boolean> {
  deathSignal ??= run(['setpriv', '--help'], { okExitCodes: 'any' }).then(
    ({ stdout }) => stdout.includes('--pdeathsig'),
    () => false,
  );
  return deathSignal;
}

function isIn(path: string, command: string): boolean {
  return path.split(':').some((directory) => existsSync(join(directory, command)));
}

function searchPath({ env }: CommandOptions): string {
  const path = env?.PATH ?? process.env.PATH;
  return path ? `${path}:${SYSTEM_PATH}` : SYSTEM_PATH;
}

/**
 * execvp says EACCES when it found no such program but was not let into a directory of PATH, such as root's own after `su`.
 */
function isNowhere(command: string, error: unknown, options: CommandOptions): boolean {
  if (hasErrno(error, 'ENOENT')) return true;
  if (!hasErrno(error, 'EACCES') || command.includes('/')) return false;
  return !isIn(searchPath(options), command);
}

/** Resolves at `close`, which comes after all output was read. Rejects when the program could not be started. */
async function exitOf(child: ChildProcess, argv: readonly string[], options: CommandOptions): Promise<Exit> {
  try {
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    return { code: code ?? undefined, signal: signal ?? undefined };
  } catch (error) {
    const started = options.netns === undefined ? (argv[0] ?? '') : 'ip';
    if (isNowhere(started, error, options)) throw missing(started, error);
    throw notStarted(argv, options, error);
  }
}

function notStarted(argv: readonly string[], options: CommandOptions, error: unknown): WeftError {
  const isOutOfFiles = hasErrno(error, 'EMFILE') || hasErrno(error, 'ENFILE');
  return new WeftError('WEFT_COMMAND_FAILED', `${shown(argv, options)} could not be started: ${messageOf(error)}`, {
    ...(isOutOfFiles
      ? { hint: 'Too many files are open: raise the limit of this process (LimitNOFILE, ulimit -n), or fs.file-max.' }
      : {}),
    cause: error,
  });
}

function failure(argv: readonly string[], options: CommandOptions, exit: Exit, output: string): WeftError {
  const command = argv[0] ?? '';
  if (options.netns !== undefined && output.includes(`exec of "${command}" failed: No such file or directory`)) {
    return missing(command, undefined);
  }
  const how = exit.code === undefined ? `ended by ${exit.signal}` : `exit code ${exit.code}`;
  const text = output.trim();
  return new WeftError('WEFT_COMMAND_FAILED', `${shown(argv, options)}: ${how}${text === '' ? '' : `: ${text}`}`);
}

/** The Debian package that a command is in. */
export function debianPackageOf(command: string): string {
  const name = command.slice(command.lastIndexOf('/') + 1);
  return DEBIAN_PACKAGES[name] ?? name;
}

function missing(command: string, cause: unknown): WeftError {
  return new WeftError('WEFT_COMMAND_MISSING', `could not run ${command}: there is no such program`, {
    hint: `On Debian: apt-get install ${debianPackageOf(command)}`,
    cause,
  });
}

/** The command as a person would type it. */
function shown(argv: readonly string[], options: CommandOptions): string {
  const words = options.netns === undefined ? argv : ['ip', 'netns', 'exec', options.netns, ...argv];
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(' ');
}

function outputHint(stderr: string): string {
  return stderr.trim() === '' ? 'It printed nothing.' : `Its last words: ${stderr.trim().slice(-500)}`;
}

/** Of a child that could not be started there is no stream. */
function collect(stream: Readable | null | undefined): () => string {
  const chunks: Buffer[] = [];
  stream?.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString('utf8');
}

function keepTail(stream: Readable | null | undefined): () => string {
  let kept = Buffer.alloc(0);
  stream?.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-TAIL_BYTES);
  });
  return () => kept.toString('utf8');
}

const running = new Set<ChildProcess>();

function endWithThisProcess(child: ChildProcess): void {
  if (running.size === 0) process.on('exit', killRunning);
  running.add(child);
  child.once('exit', () => {
    running.delete(child);
    if (running.size === 0) process.off('exit', killRunning);
  });
}

function killRunning(): void {
  for (const child of running) child.kill('SIGKILL');
}

/** Whether a program could not be run because it is not installed. */
export function isCommandMissing(error: unknown): boolean {
  return error instanceof WeftError && error.code === 'WEFT_COMMAND_MISSING';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
