import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import type { Child, Exit } from '../../src/linux/run.ts';
import { eventually, LineFeed, PATIENCE_MS } from './waiting.ts';

export const HEALTHZ_PORT = 8081;
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface FlanneldOptions {
  readonly flags?: readonly string[];
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** A command that starts what follows it: `unshare …`. It must become the agent, not wait for it. */
  readonly under?: readonly string[];
  /** Directory with the sources of another build. */
  readonly build?: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly body: string;
}

/** The agent as a process on a host of a topology, its log line by line. Ended with the topology, or by disposal. */
export class Flanneld implements AsyncDisposable {
  readonly child: Child;
  readonly log: LineFeed;
  readonly stdout: LineFeed;
  readonly #topology: Topology;
  readonly #host: LabHost;

  private constructor(topology: Topology, host: LabHost, child: Child) {
    this.#topology = topology;
    this.#host = host;
    this.child = child;
    this.log = new LineFeed(child.stderr!);
    this.stdout = new LineFeed(child.stdout!);
  }

  /** Exactly these flags and no others. */
  static async start(
    topology: Topology,
    host: LabHost,
    { flags = [], env, under = [], build = ROOT }: FlanneldOptions,
  ): Promise<Flanneld> {
    const main = join(build, 'src/cmd/flanneld/main.ts');
    const argv = [...under, process.execPath, '--disable-warning=ExperimentalWarning', main, ...flags];
    // Nothing of a test may land in the machine's /run/flannel.
    const ownFiles = { FLANNELD_SUBNET_FILE: subnetFileOf(host) };
    const options = { stderr: 'pipe', env: { ...ownFiles, ...env } } as const;
    return new Flanneld(topology, host, await topology.start(host, argv, options));
  }

  /** The first message of the log, from line `from` on, that fits; of the klog line it is what follows the header. */
  async logged(fits: RegExp, from = 0, timeoutMs: number = PATIENCE_MS): Promise<string> {
    return (await this.log.find((text) => fits.test(messageOf(text)), from, timeoutMs)).text;
  }

  /** All messages so far, without their headers. */
  get messages(): string[] {
    return this.log.seen.map(({ text }) => messageOf(text));
  }

  /** How it ended and everything it has said. */
  async ended(): Promise<Exit & { readonly stderr: string; readonly stdout: string }> {
    const exit = await this.child.exited;
    const text = (feed: LineFeed): string => feed.seen.map((line) => `${line.text}\n`).join('');
    return { ...exit, stderr: text(this.log), stdout: text(this.stdout) };
  }

  /** @throws Error when nothing listens there. */
  async get(path: string, port: number = HEALTHZ_PORT): Promise<HttpAnswer> {
    const { stdout } = await this.#topology.exec(this.#host, ['socat', '-t', '5', 'STDIO', `TCP4:127.0.0.1:${port}`], {
      stdin: `GET ${path} HTTP/1.0\r\nHost: localhost\r\n\r\n`,
    });
    const [head = '', body = ''] = stdout.split('\r\n\r\n');
    return {
      status: Number(/^HTTP\/1\.[01] (\d+)/.exec(head)?.[1]),
      contentType: /^content-type: (.*)$/im.exec(head)?.[1]?.trim() ?? '',
      body,
    };
  }

  /** Asks until the answer fits. */
  async answers(path: string, status: number, body: RegExp): Promise<HttpAnswer> {
    return eventually(`${path} answers ${status} ${body}`, async () => {
      const answer = await this.get(path).catch(() => undefined);
      return answer?.status === status && body.test(answer.body) ? answer : undefined;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.child[Symbol.asyncDispose]();
  }
}

/** A klog line without `I1126 10:44:59.123456    1234 agent.ts:56] `. */
export function messageOf(line: string): string {
  return line.replace(/^[IWE]\d{4} [\d:.]+ +\d+ [^ ]+:\d+\] /, '');
}

/** Where an agent of a test has it. */
export function subnetFileOf({ stateDirectory }: Pick<LabHost, 'stateDirectory'>): string {
  return join(stateDirectory, 'subnet.env');
}

/** Flags of an agent with a subnet store of this host alone, and files in its state directory. */
export function localFlags(host: LabHost, netConf: string | undefined, ...more: readonly string[]): string[] {
  const { stateDirectory: dir } = host;
  mkdirSync(dir, { recursive: true });
  if (netConf !== undefined) writeFileSync(join(dir, 'net-conf.json'), netConf);
  return [
    ...['--subnet-mgr=local', `--local-store=${join(dir, 'subnets.db')}`],
    ...[`--net-config-path=${join(dir, 'net-conf.json')}`, `--subnet-file=${subnetFileOf(host)}`],
    ...more,
  ];
}
