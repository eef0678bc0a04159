import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { describeError } from '../errors.ts';
import { isAdmitted, privately } from '../private-socket.ts';
import { AF_UNIX, EAGAIN, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK } from './constants.ts';
import { receiveDescriptors, sendDescriptors } from './descriptor-message.ts';
import { addressOf, bind, close, errnoName, socket } from './ffi.ts';
import type { PacketDescriptors } from './packet-descriptors.ts';
import { peerUid } from './peer-credentials.ts';
import { sockaddrUn } from './systemd-notify.ts';

/** The words of the two, a line each. Another agent's that it does not know end the conversation. */
const ANNOUNCE = 'take-over-1';
const CARRIES = 'carries';
const LEFT = 'left';

/** An agent that turns answers in milliseconds; a loaded machine gets more. */
const ANSWER_MS = 3_000;
const ANSWER_LOOK_MS = 5;
/** The one before takes itself apart, which may wait for workers; packets flow meanwhile. */
const LEAVE_MS = 5_000;

/** Of one word and what is with it; longer lines are no words of an agent. */
const MAX_LINE = 256;
/** Who has connected and not announced itself by then is no agent. */
const SILENCE_MS = 3_000;
/** One that starts, and a few that should not have. */
const MAX_CONNECTIONS = 8;

interface HandOverOptions {
  /** User of the process at the other end of a connection; `undefined` when the kernel does not say. */
  readonly userOf?: (connection: Socket) => number | undefined;
  readonly silenceMs?: number;
}

/** The agent that carries packets for the same subnet file, told that this process is to follow it. */
export interface Predecessor {
  /** Tells it that this process carries packets; resolves when it has left, or does not answer. */
  carries(signal: AbortSignal): Promise<void>;
}

export interface HandOverParts {
  /** The next agent has announced itself: the port of the health endpoint is to be free when this returns. */
  readonly release: () => void;
  /** It has ended without carrying packets, and everything is as before. */
  readonly regain: () => void;
}

/**
 * How one agent follows another without a gap: the one that starts announces itself, gets the descriptors of TUN device and socket,
 * carries packets beside the old one, says so, and the old one leaves. Which agents those are is said by a socket beside the subnet file.
 *
 * An agent that has left must not end by itself, for then it would be started again and follow its follower: it waits to be stopped.
 */
export class HandOver implements Disposable {
  readonly #path: string;
  readonly #descriptors: PacketDescriptors;
  readonly #onNotice: (text: string) => void;
  readonly #userOf: (connection: Socket) => number | undefined;
  readonly #silenceMs: number;
  readonly #superseded = new AbortController();
  #predecessor: Socket | undefined;
  #successor: Socket | undefined;
  #decided: PromiseWithResolvers<void> | undefined;

  constructor(
    path: string,
    descriptors: PacketDescriptors,
    onNotice: (text: string) => void,
    { userOf = peerUid, silenceMs = SILENCE_MS }: HandOverOptions = {},
  ) {
    this.#path = path;
    this.#descriptors = descriptors;
    this.#onNotice = onNotice;
    this.#userOf = userOf;
    this.#silenceMs = silenceMs;
  }

  /** Fires when the next agent carries packets. */
  get superseded(): AbortSignal {
    return this.#superseded.signal;
  }

  /** The agent before this one, if there is any; its descriptors are adopted and its health port is free. Rejects with the signal's reason. */
  async announce(signal: AbortSignal): Promise<Predecessor | undefined> {
    signal.throwIfAborted();
    const toOld = await connected(this.#path);
    if (toOld === undefined) return undefined;
    if (!this.#isTrusted(toOld)) {
      toOld.destroy();
      return undefined;
    }
    this.#predecessor = toOld;
    const lines = createInterface({ input: toOld });
    const left = Promise.race([lineOf(lines, LEFT), once(toOld, 'close')]);
    left.catch(() => {});
    try {
      const name = randomBytes(4).toString('hex');
      using inbox = openInbox(`${this.#path}.${name}`);
      toOld.write(`${ANNOUNCE} ${name}\n`);
      this.#descriptors.adopt(await inbox.receive(signal, () => toOld.destroyed));
    } catch (error) {
      signal.throwIfAborted();
      this.#onNotice(`Could not take over from the running agent: ${describeError(error)}`);
      toOld.destroy();
      return undefined;
    }
    return {
      carries: async (signal) => {
        if (toOld.destroyed) return;
        toOld.write(`${CARRIES}\n`);
        await Promise.race([left, delay(LEAVE_MS, undefined, { signal, ref: false })]).catch(() => {});
        // Stays open: that is how the other one sees that this process lives.
        toOld.unref();
      },
    };
  }

  /** From now on, until disposed, the next agent may take over. What is in the way of that is said, and no error. */
  async accept(parts: HandOverParts): Promise<AsyncDisposable> {
    const server = createServer((connection) => this.#serve(connection, parts));
    server.maxConnections = MAX_CONNECTIONS;
    try {
      // Of an agent that was killed; of one that lives it is gone, for that one has left.
      rmSync(this.#path, { force: true });
      privately(() => server.listen(this.#path));
      await once(server, 'listening');
      server.on('error', () => {});
      server.unref();
    } catch (error) {
      this.#onNotice(`The next agent cannot take over without a gap: ${describeError(error)}`);
    }
    return { [Symbol.asyncDispose]: () => closed(server) };
  }

  /** What a stop waits for: that a successor which has announced itself carries packets, or is gone. `undefined` when there is none. */
  successorDecided(): Promise<void> | undefined {
    return this.superseded.aborted ? undefined : this.#decided?.promise;
  }

  /** Tells the successor that nothing of this agent is left; resolves when that one has ended. */
  async left(): Promise<void> {
    const successor = this.#successor;
    if (successor === undefined || successor.destroyed) return;
    successor.ref();
    successor.write(`${LEFT}\n`);
    if (!successor.closed) await once(successor, 'close');
  }

  /** Ends both connections, as the end of the process does. */
  [Symbol.dispose](): void {
    this.#predecessor?.destroy();
    this.#successor?.destroy();
  }

  /** The mode of the socket keeps others out already; this holds where somebody has changed it. */
  #isTrusted(connection: Socket): boolean {
    const user = this.#userOf(connection);
    if (isAdmitted(user, process.getuid?.())) return true;
    const who = user === undefined ? 'the kernel does not say who that is' : `user ${user}`;
    this.#onNotice(`Only root and the agent’s user may take over here: refused ${who}`);
    return false;
  }

  /** Who announces itself first takes over; until then, a connection keeps nobody out. */
  #serve(connection: Socket, { release, regain }: HandOverParts): void {
    connection.on('error', () => connection.destroy());
    if (!this.#isTrusted(connection)) {
      connection.destroy();
      return;
    }
    const silence = setTimeout(() => connection.destroy(), this.#silenceMs).unref();
    connection.once('close', () => {
      clearTimeout(silence);
      if (this.#successor !== connection) return;
      this.#decided?.resolve();
      if (this.superseded.aborted) return;
      this.#successor = undefined;
      this.#decided = undefined;
      regain();
    });
    const announced = (name: string): void => {
      clearTimeout(silence);
      this.#successor = connection;
      this.#decided = Promise.withResolvers();
      release();
      const to = /^[0-9a-f]+$/.test(name) ? sockaddrUn(`${this.#path}.${name}`) : undefined;
      if (to === undefined || sendDescriptors(to, ANNOUNCE, this.#descriptors.lent) < 0) connection.destroy();
    };
    let text = '';
    connection.setEncoding('latin1').on('data', (piece: string) => {
      const lines = `${text}${piece}`.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) {
        const [word, name = ''] = line.split(' ');
        if (word === ANNOUNCE && this.#successor === undefined) announced(name);
        else if (word === CARRIES && this.#successor === connection) {
          this.#superseded.abort(new Error('the next agent carries packets'));
          this.#decided?.resolve();
        } else connection.destroy();
      }
      if (text.length > MAX_LINE) connection.destroy();
    });
  }
}

/** `undefined` when nobody listens there. */
async function connected(path: string): Promise<Socket | undefined> {
  const connection = connect(path);
  try {
    await once(connection, 'connect');
    connection.on('error', () => connection.destroy());
    return connection;
  } catch {
    connection.destroy();
    return undefined;
  }
}

async function lineOf(lines: AsyncIterable<string>, wanted: string): Promise<void> {
  for await (const line of lines) if (line === wanted) return;
}

interface Inbox extends Disposable {
  receive(signal: AbortSignal, hasEnded: () => boolean): Promise<readonly number[]>;
}

/** Node.js reads no descriptors from its sockets, so there is one beside them. */
function openInbox(path: string): Inbox {
  const address = sockaddrUn(path);
  if (address === undefined) throw new Error(`${path} is too long for a socket`);
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw new Error(`making a socket: ${errnoName(fd)}`);
  const bound = privately(() => bind(fd, addressOf(address), address.length));
  if (bound < 0) {
    close(fd);
    throw new Error(`making the socket ${path}: ${errnoName(bound)}`);
  }
  return {
    async receive(signal, hasEnded) {
      for (const until = performance.now() + ANSWER_MS; performance.now() < until; ) {
        const message = receiveDescriptors(fd);
        if (typeof message !== 'number') return message.fds;
        if (message !== -EAGAIN) throw new Error(`reading its answer: ${errnoName(message)}`);
        if (hasEnded()) throw new Error('it has ended');
        await delay(ANSWER_LOOK_MS, undefined, { signal });
      }
      throw new Error(`it has not answered within ${ANSWER_MS} ms`);
    },
    [Symbol.dispose]: () => {
      close(fd);
      rmSync(path, { force: true });
    },
  };
}

/** Connections go on. */
function closed(server: Server): Promise<void> {
  server.close();
  return Promise.resolve();
}
