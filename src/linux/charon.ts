import { setTimeout as delay } from 'node:timers/promises';
import { IPSEC_REQID } from '../desired/state.ts';
import { describeError, WeftError } from '../errors.ts';
import { CHARON_FOLDERS, type IkeConnection, type IkeDaemon, type IkeSession, type IkeSettings } from '../ike/ike.ts';
import { type ViciMessage, viciMessage } from '../ike/vici-message.ts';
import { childName, connectionWords, tunnelsOf } from '../ike/vici-words.ts';
import type { Secret } from '../secret.ts';
import { findProgram, programPaths } from './find-program.ts';
import { type Child, lines, run, start } from './run.ts';
import { NO_WORDS, ViciClient } from './vici-client.ts';

const SOCKET = '/var/run/charon.vici';
/** From its start to its first answer; a machine that boots is slow. */
const START_PATIENCE_MS = 30_000;
const LOOK_EVERY_MS = 50;
/** It tells the peers that their tunnels end. */
const END_PATIENCE_MS = 5_000;
/** Of what it says, for messages about its end. */
const LAST_LINES = 3;
/** Names the key among those of charon, so that another one takes its place. */
const KEY_ID = 'weft';

const FORGET_KEYS = [
  'ip',
  'xfrm',
  'state',
  'deleteall',
  'proto',
  'esp',
  'mode',
  'tunnel',
  'reqid',
  String(IPSEC_REQID),
];

const INSTALL =
  'Install it (Debian: apt-get install strongswan-charon strongswan-swanctl libstrongswan-standard-plugins; then systemctl disable --now strongswan-starter, for the agent starts charon itself). Or use the backend wireguard, which also encrypts and needs no daemon.';

export interface CharonOptions {
  /** Takes each line that it writes. It writes no keys. */
  readonly onLine: (line: string) => void;
}

/** strongSwan's charon as a child of this process. */
export class Charon implements IkeDaemon {
  readonly #options: CharonOptions;

  constructor(options: CharonOptions) {
    this.#options = options;
  }

  async find(): Promise<void> {
    await this.#executable();
  }

  async start(signal: AbortSignal): Promise<IkeSession> {
    const child = await start([await this.#executable()], {
      ...{ stdout: 'pipe', stderr: 'pipe', killGraceMs: END_PATIENCE_MS, signal },
      // It takes its keys out of the kernel, and its process id out of the file that keeps another one from starting.
      endsWithThisProcess: 'SIGTERM',
    });
    try {
      const session = await CharonSession.of(child, this.#options.onLine, signal);
      // Keys that a killed charon has left in the kernel, which this one knows nothing of.
      await run(FORGET_KEYS, { okExitCodes: 'any', signal });
      return session;
    } catch (error) {
      await child[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #executable(): Promise<string> {
    const paths = programPaths('charon', CHARON_FOLDERS);
    const found = await findProgram(paths);
    if (found !== undefined) return found;
    throw new WeftError('WEFT_CHARON_MISSING', `No valid charon executable found at paths [${paths.join(' ')}]`, {
      hint: INSTALL,
    });
  }
}

class CharonSession implements IkeSession {
  readonly ended: Promise<string>;
  readonly #child: Child;
  readonly #client: ViciClient;

  private constructor(child: Child, client: ViciClient, ended: Promise<string>) {
    this.#child = child;
    this.#client = client;
    this.ended = Promise.race([ended, client.ended]);
  }

  /** @throws WeftError WEFT_CHARON_FAILED */
  static async of(child: Child, onLine: (line: string) => void, signal: AbortSignal): Promise<CharonSession> {
    const said: string[] = [];
    const read = async (stream: Child['stdout']): Promise<void> => {
      for await (const line of lines(stream!)) {
        said.push(line);
        if (said.length > LAST_LINES) said.shift();
        onLine(line);
      }
    };
    void read(child.stdout).catch(() => {});
    void read(child.stderr).catch(() => {});
    let isGone = false;
    const ended = child.exited.then(({ code, signal: by }) => {
      isGone = true;
      return `it has ended (${by ?? `exit code ${code}`}): ${said.join(' | ') || 'without a word'}`;
    });
    const patience = AbortSignal.any([signal, AbortSignal.timeout(START_PATIENCE_MS)]);
    for (;;) {
      // Its socket may be one that an earlier charon has left: nobody answers there.
      const client = await ViciClient.open(SOCKET, patience).catch((error: unknown) => describeError(error));
      signal.throwIfAborted();
      if (isGone) {
        if (typeof client !== 'string') client[Symbol.dispose]();
        throw notUsable(await ended);
      }
      if (typeof client !== 'string') {
        await client.request('version', NO_WORDS, patience);
        return new CharonSession(child, client, ended);
      }
      if (patience.aborted) {
        throw notUsable(
          `it opens no socket ${SOCKET} (${client}). That is done by its plugin vici, which Debian has in strongswan-swanctl`,
        );
      }
      await Promise.race([delay(LOOK_EVERY_MS), ended]);
    }
  }

  async loadKey(key: Secret, signal: AbortSignal): Promise<void> {
    await this.#ask('load-shared', { id: KEY_ID, type: 'IKE', data: key.reveal() }, signal);
  }

  async load(connection: IkeConnection, settings: IkeSettings, signal: AbortSignal): Promise<void> {
    await this.#client.request('load-conn', connectionWords(connection, settings), signal);
  }

  async unload(name: string, signal: AbortSignal): Promise<void> {
    await this.#ask('unload-conn', { name }, signal);
    // There may be none.
    await this.#ask('terminate', { ike: name, force: 'yes', timeout: '-1' }, signal).catch(() =>
      signal.throwIfAborted(),
    );
  }

  async initiate(connection: IkeConnection, signal: AbortSignal): Promise<void> {
    const words = { ike: connection.name, child: childName(connection), timeout: '-1' };
    await this.#ask('initiate', words, signal);
  }

  async tunnels(signal: AbortSignal): Promise<ReturnType<typeof tunnelsOf>> {
    return tunnelsOf(await this.#client.list('list-sas', 'list-sa', NO_WORDS, signal));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client[Symbol.dispose]();
    await this.#child[Symbol.asyncDispose]();
  }

  async #ask(command: string, words: Readonly<Record<string, string>>, signal: AbortSignal): Promise<ViciMessage> {
    return await this.#client.request(command, viciMessage(words), signal);
  }
}

function notUsable(why: string): WeftError {
  return new WeftError('WEFT_CHARON_FAILED', `strongSwan's charon cannot be used: ${why}`, {
    hint: 'The agent runs charon itself, and a host can run only one: stop the other one (systemctl disable --now strongswan-starter). Its own messages are in the log with -v=2. The agent retries.',
  });
}
