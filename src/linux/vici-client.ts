import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describeError, WeftError } from '../errors.ts';
import {
  encodePacket,
  VICI_PACKETS,
  type ViciMessage,
  type ViciPacket,
  ViciPackets,
  viciMessage,
} from '../ike/vici-message.ts';

/** charon answers within milliseconds; one that does not has stopped working. */
const PATIENCE_MS = 10_000;

interface Asked {
  readonly answer: PromiseWithResolvers<ViciPacket>;
  /** Takes the events that come before the answer. */
  readonly events: ViciMessage[];
}

/**
 * A connection to charon's socket. Questions are asked one after the other; whatever goes wrong with the socket or with what comes
 * from it ends the connection.
 */
export class ViciClient implements Disposable {
  /** Settles with why, once the connection has ended; never rejects. */
  readonly ended: Promise<string>;
  readonly #socket: Socket;
  readonly #packets = new ViciPackets();
  readonly #onEnd: (why: string) => void;
  #asked: Asked | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(socket: Socket) {
    const { promise, resolve } = Promise.withResolvers<string>();
    this.ended = promise;
    this.#onEnd = (why) => {
      resolve(why);
      this.#asked?.answer.reject(failed(why));
      this.#socket.destroy();
    };
    this.#socket = socket;
    socket.on('data', (piece: Buffer) => this.#take(piece));
    socket.on('error', (error) => this.#onEnd(`its VICI socket broke: ${error.message}`));
    socket.on('close', () => this.#onEnd('it has closed its VICI socket'));
  }

  /** @throws the error of the socket. */
  static async open(path: string, signal: AbortSignal): Promise<ViciClient> {
    // Given the signal, the socket would be destroyed by it long after it was opened.
    const socket = connect({ path });
    // An `error` after the event that is waited for must find a listener.
    const opened = once(socket, 'connect', { signal });
    try {
      await opened;
    } catch (error) {
      socket.on('error', () => {});
      socket.destroy();
      throw error;
    }
    return new ViciClient(socket);
  }

  /** @throws WeftError WEFT_CHARON_FAILED when it refuses, or does not answer. */
  async request(command: string, message: ViciMessage, signal: AbortSignal): Promise<ViciMessage> {
    const { answer } = await this.#ask(VICI_PACKETS.request, command, message, signal);
    if (answer.type !== VICI_PACKETS.response) throw failed(`it does not know the command ${command}`);
    if (answer.message.get('success') === 'no') {
      throw failed(`${command}: ${String(answer.message.get('errmsg') ?? 'it gives no further reason')}`);
    }
    return answer.message;
  }

  /** The events that a command brings about before its answer. @throws as {@link request}. */
  async list(command: string, event: string, message: ViciMessage, signal: AbortSignal): Promise<ViciMessage[]> {
    const { answer } = await this.#ask(VICI_PACKETS.registerEvent, event, undefined, signal);
    if (answer.type !== VICI_PACKETS.eventConfirmed) throw failed(`it does not know the event ${event}`);
    try {
      const { events } = await this.#ask(VICI_PACKETS.request, command, message, signal);
      return events;
    } finally {
      if (!this.#socket.destroyed) await this.#ask(VICI_PACKETS.unregisterEvent, event, undefined, signal);
    }
  }

  [Symbol.dispose](): void {
    this.#onEnd('the agent has closed the connection');
  }

  async #ask(
    type: number,
    name: string,
    message: ViciMessage | undefined,
    signal: AbortSignal,
  ): Promise<{ readonly answer: ViciPacket; readonly events: ViciMessage[] }> {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#turn = promise;
    await before;
    const asked: Asked = { answer: Promise.withResolvers(), events: [] };
    const giveUp = (): void => asked.answer.reject(signal.reason);
    const timer = setTimeout(() => this.#onEnd(`it did not answer ${name} in ${PATIENCE_MS} ms`), PATIENCE_MS);
    try {
      signal.throwIfAborted();
      if (this.#socket.destroyed) throw failed(await this.ended);
      this.#asked = asked;
      signal.addEventListener('abort', giveUp, { once: true });
      this.#socket.write(encodePacket(type, name, message));
      return { answer: await asked.answer.promise, events: asked.events };
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', giveUp);
      this.#asked = undefined;
      // What comes now would be taken for the answer to the next question.
      if (signal.aborted) this.#onEnd('the agent waits for its answer no more');
      resolve();
    }
  }

  #take(piece: Uint8Array): void {
    try {
      for (const packet of this.#packets.take(piece)) {
        if (packet.type === VICI_PACKETS.event) this.#asked?.events.push(packet.message);
        else this.#asked?.answer.resolve(packet);
      }
    } catch (error) {
      this.#onEnd(`it sends what is no VICI: ${describeError(error)}`);
    }
  }
}

export const NO_WORDS: ViciMessage = viciMessage({});

function failed(why: string): WeftError {
  return new WeftError('WEFT_CHARON_FAILED', `strongSwan's charon: ${why}`, {
    hint: 'Its own messages are in the log with -v=2.',
  });
}
