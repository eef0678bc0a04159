import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Child, run } from '../../linux/run.ts';
import type { KeyPair } from './certs.ts';
import { freePorts } from './free-ports.ts';
import { launcherOf, type ServerPlace } from './server-place.ts';
import { endOfLog } from './server-process.ts';

export interface EtcdTls extends KeyPair {
  readonly caFile: string;
  /** Accept only clients that show a certificate of the same authority; etcdctl then shows this one. */
  readonly clients?: KeyPair;
}

export interface EtcdServerOptions extends ServerPlace {
  /** Serve clients over TLS. */
  readonly tls?: EtcdTls;
  /** Size of the cluster; each member is a process of its own. */
  readonly members?: number;
  /** Further flags of etcd. */
  readonly flags?: readonly string[];
}

interface Member {
  readonly name: string;
  readonly clientUrl: string;
  readonly peerUrl: string;
  child: Child | undefined;
}

const READY_WITHIN_MS = 30_000;

/**
 * Real etcd processes with a data folder of their own that survives `kill`. Disposing ends the processes and removes the
 * folder.
 */
export class EtcdServer implements AsyncDisposable {
  readonly #folder: string;
  readonly #options: EtcdServerOptions;
  readonly #members: readonly Member[];

  private constructor(folder: string, options: EtcdServerOptions, members: readonly Member[]) {
    this.#folder = folder;
    this.#options = options;
    this.#members = members;
  }

  /** Resolves when it takes writes. */
  static async start(options: EtcdServerOptions = {}): Promise<EtcdServer> {
    const { netns, address = '127.0.0.1', members: count = 1 } = options;
    // A port that was free may be taken when etcd comes to it: then others are tried.
    for (let attempt = 1; ; attempt++) {
      const folder = options.directory ?? (await mkdtemp(join(tmpdir(), 'weft-etcd-')));
      await mkdir(folder, { recursive: true });
      const ports = netns === undefined ? await freePorts(2 * count) : portsOfItsOwn(2 * count);
      const members = Array.from(
        { length: count },
        (_, i): Member => ({
          name: `m${i}`,
          clientUrl: `${options.tls === undefined ? 'http' : 'https'}://${address}:${ports[2 * i]}`,
          peerUrl: `http://127.0.0.1:${ports[2 * i + 1]}`,
          child: undefined,
        }),
      );
      const server = new EtcdServer(folder, options, members);
      try {
        await server.restart();
        return server;
      } catch (error) {
        await server[Symbol.asyncDispose]();
        if (netns !== undefined || attempt === 3 || !String(error).includes('address already in use')) throw error;
      }
    }
  }

  get endpoints(): readonly string[] {
    return this.#members.map((member) => member.clientUrl);
  }

  /** SIGKILL to one member, or to all. */
  async kill(index?: number): Promise<void> {
    const victims = index === undefined ? this.#members : [this.#members[index]!];
    await Promise.all(
      victims.map(async (member) => {
        member.child?.kill('SIGKILL');
        await member.child?.exited;
        member.child = undefined;
      }),
    );
  }

  /** Removes all data of what does not run. */
  async wipe(): Promise<void> {
    for (const { name, child } of this.#members) {
      if (child === undefined) await rm(join(this.#folder, name), { recursive: true, force: true });
    }
  }

  /**
   * Starts what does not run, on the data that is there; resolves when a write is possible. `etcdctlFlags`: what etcdctl
   * needs once users are switched on.
   */
  async restart(...etcdctlFlags: readonly string[]): Promise<void> {
    for (const member of this.#members) member.child ??= await this.#launch(member);
    const deadline = Date.now() + READY_WITHIN_MS;
    for (;;) {
      const { exitCode, stderr } = await this.#etcdctl(
        [...etcdctlFlags, 'endpoint', 'health', '--dial-timeout=1s', '--command-timeout=1s'],
        'any',
      );
      if (exitCode === 0) return;
      const ended = await this.#ended();
      if (ended !== undefined) throw new Error(`etcd ended by itself: ${ended}`);
      if (Date.now() > deadline) throw new Error(`etcd does not answer after ${READY_WITHIN_MS} ms: ${stderr}`);
      await delay(50);
    }
  }

  /** SIGSTOP to all: connections stay, nothing answers. */
  async freeze(): Promise<AsyncDisposable> {
    for (const member of this.#members) member.child?.kill('SIGSTOP');
    return {
      [Symbol.asyncDispose]: async () => {
        for (const member of this.#members) member.child?.kill('SIGCONT');
      },
    };
  }

  /** Standard output of etcdctl, with the arguments as they are after the connection's. */
  async etcdctl(...args: readonly string[]): Promise<string> {
    return (await this.#etcdctl(args, [0])).stdout;
  }

  /** Makes etcd forget all history up to now. */
  async compact(): Promise<void> {
    const { header } = JSON.parse(await this.etcdctl('get', 'x', '--write-out=json')) as {
      header: { revision: number };
    };
    await this.etcdctl('compact', '--physical', String(header.revision));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #etcdctl(
    args: readonly string[],
    okExitCodes: readonly number[] | 'any',
  ): Promise<{ stdout: string; stderr: string; exitCode: number }> {
    const { tls } = this.#options;
    const shown = tls?.clients && [`--cert=${tls.clients.certFile}`, `--key=${tls.clients.keyFile}`];
    const files = tls && [`--cacert=${tls.caFile}`, ...(shown ?? [])];
    // Elections take seconds on a busy machine.
    const patience = args.some((arg) => arg.startsWith('--command-timeout')) ? [] : ['--command-timeout=20s'];
    const argv = ['etcdctl', `--endpoints=${this.endpoints.join(',')}`, ...patience, ...(files ?? []), ...args];
    const { netns } = this.#options;
    return await run(argv, { netns, env: { ETCDCTL_API: '3' }, okExitCodes, timeoutMs: READY_WITHIN_MS });
  }

  async #launch(member: Member): Promise<Child> {
    const { tls, flags } = this.#options;
    const argv = [
      'etcd',
      `--name=${member.name}`,
      `--data-dir=${join(this.#folder, member.name)}`,
      `--listen-client-urls=${member.clientUrl}`,
      `--advertise-client-urls=${member.clientUrl}`,
      `--listen-peer-urls=${member.peerUrl}`,
      `--initial-advertise-peer-urls=${member.peerUrl}`,
      `--initial-cluster=${this.#members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',')}`,
      '--log-level=warn',
      // Whole machines do not fail here, and the disk is shared with other tests.
      '--unsafe-no-fsync',
      ...(tls === undefined ? [] : [`--cert-file=${tls.certFile}`, `--key-file=${tls.keyFile}`]),
      ...(tls?.clients === undefined ? [] : [`--trusted-ca-file=${tls.caFile}`, '--client-cert-auth']),
      ...(flags ?? []),
    ];
    // etcd wants to be told that an architecture other than x64 is meant.
    const launch = launcherOf(this.#options);
    return await launch(argv, this.#logFile(member), { ETCD_UNSUPPORTED_ARCH: process.arch });
  }

  /** The last words of a member that has ended without being told to. */
  async #ended(): Promise<string | undefined> {
    for (const member of this.#members) {
      if (member.child === undefined) continue;
      const exit = await Promise.race([member.child.exited, delay(0, undefined)]);
      if (exit !== undefined) return `${member.name}: ${await endOfLog(this.#logFile(member))}`;
    }
    return undefined;
  }

  #logFile(member: Member): string {
    return join(this.#folder, `${member.name}.log`);
  }
}

/** In a namespace of its own nobody else has any: etcd's usual ones. */
function portsOfItsOwn(count: number): number[] {
  return Array.from({ length: count }, (_, i) => 2379 + i);
}
