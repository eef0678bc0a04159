import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ClusterReport } from '../../src/cmd/weft/cluster-test.ts';
import type { Report } from '../../src/diagnosis/report.ts';
import type { Problem } from '../../src/diagnosis/verdict.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import type { LabHost, Place } from '../../src/lab/topology.ts';
import { Overlay } from '../netns/overlay.ts';
import { eventually } from '../netns/waiting.ts';

const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));
/** Sends UDP datagrams; its arguments are there. */
export const DATAGRAM_SENDER: string = fileURLToPath(new URL('./datagram-sender.ts', import.meta.url));
export const HOSTS = ['a', 'b', 'c'] as const;

/** To the right answer. On a machine of its own all are named within ten; this one has other work. */
const MOST_SECONDS = 30;

/** Where nothing is wrong, so many answers in a row must say so: one may have come before a false alarm. */
const CLEAN_ANSWERS = 3;

/** After so many faults all hosts must be well again. */
const HEALTHY_EVERY = 8;

export type HostName = (typeof HOSTS)[number];

type Script = Readonly<Partial<Record<HostName | 'switch', string>>> | ((bed: Bed) => Promise<unknown>);

/** Something that breaks the network, and what must be said of it. */
export interface Fault {
  readonly name: string;
  /** Shell commands by place: a host, or `switch`. `AGENT` in one is the pid of that host's agent. */
  readonly inject: Script;
  /** What takes it back; must succeed. */
  readonly heal: Script;
  /** Where `weft test` runs. */
  readonly at: HostName;
  /** Whom it must name, a host or somebody else in the report's own words, and by which words; `undefined`: nothing is wrong. */
  readonly where: string | undefined;
  readonly faults: readonly string[];
  /** What it broke is put right by the agent, which must have done so before the next one. */
  readonly leavesDamage?: true;
}

/** Three hosts with agents and containers, which faults are injected into one after the other. */
export class Bed implements AsyncDisposable {
  readonly overlay: Overlay;
  readonly #signal: AbortSignal;

  private constructor(overlay: Overlay, signal: AbortSignal) {
    this.overlay = overlay;
    this.#signal = signal;
  }

  /** With agents that run. */
  static on(overlay: Overlay, signal: AbortSignal): Bed {
    return new Bed(overlay, signal);
  }

  static async create(backend: string, signal: AbortSignal, agentFlags: readonly string[] = []): Promise<Bed> {
    const netConf = `{"Network": "10.244.0.0/16", "Backend": {"Type": "${backend}"}}`;
    const options = { hosts: 3, containersPerHost: 1, underlay: 'wire', netConf, agentFlags } as const;
    const overlay = await Overlay.create(options, signal);
    return new Bed(overlay, signal);
  }

  host(name: HostName): LabHost {
    return this.overlay.topology.hosts[HOSTS.indexOf(name)]!;
  }

  /** With `A_IP`, `B_NET`, `C_MAC`, … filled in. */
  async run(script: Script): Promise<void> {
    if (typeof script === 'function') {
      await script(this);
      return;
    }
    for (const [name, text] of Object.entries(script) as [HostName | 'switch', string][]) {
      const place: Place = name === 'switch' ? this.overlay.topology.plan.switchNamespace : this.host(name);
      await this.overlay.topology.exec(place, ['sh', '-ec', this.filled(name, text)], { timeoutMs: 30_000 });
    }
  }

  filled(at: HostName | 'switch', text: string): string {
    let filled = text;
    for (const name of HOSTS) {
      const host = this.host(name);
      const upper = name.toUpperCase();
      filled = filled.replaceAll(`${upper}_IP`, formatIpv4(host.address)).replaceAll(`${upper}_PORT`, host.switchPort);
      filled = filled.replaceAll(`${upper}_NET`, formatPrefix4(host.network!.subnet));
      filled = filled.replaceAll(`${upper}_GW`, formatIpv4(host.network!.gateway));
      filled = filled.replaceAll(`${upper}_DEV`, formatIpv4(host.network!.subnet.addr));
    }
    if (at === 'switch') return filled;
    const { stateDirectory, containers } = this.host(at);
    return filled
      .replaceAll('AGENT', String(this.overlay.agents[HOSTS.indexOf(at)]!.child.pid))
      .replaceAll('STATE', stateDirectory)
      .replaceAll('CONTAINER', containers[0]!.namespace);
  }

  /** What `weft test` says on that host. */
  async test(name: HostName): Promise<Report> {
    return this.#json<Report>(name, ['--subnet-file', `${this.host(name).stateDirectory}/subnet.env`]);
  }

  /** What it says of every pair when it asks the agents of all hosts from that one. They listen there, with that token. */
  async testPairs(name: HostName, port: number, tokenFile: string): Promise<ClusterReport> {
    const hosts = HOSTS.flatMap((one) => ['--host', `${one}=http://${formatIpv4(this.host(one).address)}:${port}`]);
    return this.#json<ClusterReport>(name, [...hosts, '--token-file', tokenFile]);
  }

  async #json<T>(name: HostName, words: readonly string[]): Promise<T> {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', WEFT, 'test', '--json', ...words];
    const { stdout, stderr } = await this.overlay.topology.exec(this.host(name), argv, {
      okExitCodes: [0, 1],
      timeoutMs: 90_000,
      signal: this.#signal,
    });
    try {
      return JSON.parse(stdout) as T;
    } catch {
      throw new Error(`weft test says no JSON: ${stdout}${stderr}`);
    }
  }

  /**
   * Injects it, lets `weft test` name it, and takes it back. Returns the seconds from the moment the fault was there to the right
   * answer; of a control, to the first of {@link CLEAN_ANSWERS} in a row. What was said at once need not be gone yet: who goes on with
   * another fault waits until that one is named and nobody innocent.
   */
  async prove(fault: Fault): Promise<number> {
    let last: readonly Problem[] = [];
    let seconds = 0;
    const wanted = fault.where === undefined ? CLEAN_ANSWERS : 1;
    try {
      await this.run(fault.inject);
      const since = performance.now();
      let inRow = 0;
      await eventually(
        `weft test names ${fault.faults.join(' or ') || 'nothing'} on ${fault.where ?? 'any host'}`,
        async () => {
          last = (await this.test(fault.at)).problems;
          inRow = this.#fits(fault, last) ? inRow + 1 : 0;
          if (inRow === 1) seconds = (performance.now() - since) / 1_000;
          return inRow === wanted;
        },
      );
    } catch (error) {
      throw new Error(`${(error as Error).message}; it says ${JSON.stringify(last, undefined, 2)}`);
    } finally {
      await this.run(fault.heal);
    }
    if (fault.leavesDamage === true) await this.healthy(fault.at);
    return seconds;
  }

  /** On all hosts, side by side. */
  async allHealthy(): Promise<void> {
    await Promise.all(HOSTS.map((name) => this.healthy(name)));
  }

  /** No error on that host; a warning may speak of what was repaired a while ago. */
  async healthy(name: HostName): Promise<void> {
    let last: readonly Problem[] = [];
    await eventually(`no problem on ${name}`, async () => {
      last = (await this.test(name)).problems.filter(({ severity }) => severity === 'error');
      return last.length === 0 || undefined;
    }).catch((error: unknown) => assert.fail(`${(error as Error).message}: ${JSON.stringify(last, undefined, 2)}`));
  }

  /** The right cause is named, and no host or pair that is innocent. */
  #fits({ where, faults, at }: Fault, problems: readonly Problem[]): boolean {
    const errors = problems.filter(({ severity }) => severity === 'error');
    if (where === undefined) return errors.length === 0;
    const named = HOSTS.find((name) => name === where);
    const place = this.filled(
      'switch',
      named === undefined ? where : `${named.toUpperCase()}_NET on ${named.toUpperCase()}_IP`,
    );
    if (!problems.some((one) => one.where === place && faults.includes(one.fault))) return false;
    // What is wrong with this host shows on all its paths; what is wrong with a peer, on that one alone.
    return (
      where === 'this host' || errors.every((one) => one.where === place || (one.where === 'this host' && at !== where))
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.overlay[Symbol.asyncDispose]();
  }
}

/** Prints the time that it took for docs/DIAGNOSIS.md. Too long counts when it is so twice: the machine may have been held up once. */
export async function proveInTime(t: TestContext, bed: Bed, fault: Fault): Promise<void> {
  const proven = async (): Promise<number> => {
    const seconds = await bed.prove(fault);
    t.diagnostic(`named after ${seconds.toFixed(1)} s`);
    return seconds;
  };
  const isInTime = (await proven()) < MOST_SECONDS || (await proven()) < MOST_SECONDS;
  assert.ok(isInTime, `it took ${MOST_SECONDS} s and more, twice`);
}

/** Faults of one backend, one after the other, on three hosts. */
export function proveAll(backend: string, faults: readonly Fault[]): void {
  describe(`weft test with the backend ${backend}`, () => {
    let bed: Bed;
    before(async () => {
      bed = await Bed.create(backend, AbortSignal.timeout(1_200_000));
    });
    after(() => bed?.[Symbol.asyncDispose]());

    it('finds nothing wrong where nothing is, on any host', () => bed.allHealthy());

    for (const [index, fault] of faults.entries()) {
      it(`names ${fault.name}`, (t) => proveInTime(t, bed, fault));
      // A fault that is not taken back is found soon, and not after each row: that would double the time.
      if (index % HEALTHY_EVERY === HEALTHY_EVERY - 1 || index === faults.length - 1)
        it(`finds nothing wrong again after the first ${index + 1}`, () => bed.allHealthy());
    }
  });
}
