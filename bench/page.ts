/**
 * `make bench-page`: what it costs three hosts that somebody looks at the page of `weft ui`, and how soon a fault is red on it. A lab
 * whose agents carry packets in user space is measured in interleaved rounds: with the page closed; read, by a program that asks
 * for what the page asks for, as a browser on another machine does; and open in Chromium on this machine, which has to draw it
 * as well. Options: --rounds N, --seconds N (of each measurement), --faults N, --screen PATH, --json.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { type Browser, chromium, type Page } from 'playwright-core';
import { ROOT } from '../scripts/packaging/architecture.ts';
import type { Answer } from '../src/api/schema.ts';
import { describeError, WeftError } from '../src/errors.ts';
import type { LabResult } from '../src/lab/lab-result.ts';
import { readRecord } from '../src/lab/registry.ts';
import { run, start } from '../src/linux/run.ts';
import { describeMachine } from './machine.ts';
import { cpuNsOf } from './process-figures.ts';
import { saysReady } from './says-ready.ts';
import { type Summary, summarise } from './stats.ts';

const WEFT = join(ROOT, 'bin', 'weft');
const CHROMIUM = '/usr/bin/chromium';
/** Until a page that was opened has drawn itself, and one that was closed is gone. */
const SETTLE_MS = 2_000;
const PATIENCE_MS = 120_000;
const LOOK_MS = 100;

const ARMS = ['closed', 'read', 'open'] as const;
type Arm = (typeof ARMS)[number];

/** Run in the page: when a cell is red, and drawn. Asking for it from here takes up to a second on a busy machine. */
const SEES_RED = `globalThis.redAtMs = new Promise((resolve) => {
  const look = () => {
    if (document.querySelector('td.cell-bad') === null) return;
    requestAnimationFrame(() => setTimeout(() => resolve(Date.now())));
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
}), undefined`;

/** One measurement with the page closed, read or open. */
interface Sample {
  /** One TCP stream from container to container. */
  readonly gbps: number;
  /** Processor time of the three agents and of weft ui, in seconds of each second, while a few pings pass. */
  readonly agents: number;
  readonly ui: number;
  /** The same of Chromium. */
  readonly browser: number;
}

/** What a page asks `weft ui` for, and when, in milliseconds from the beginning of `lengthMs`. */
interface Questions {
  readonly lengthMs: number;
  readonly asked: readonly { readonly atMs: number; readonly path: string }[];
}

/** A process and all that it has started. */
function familyOf(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      parents.set(
        Number(name),
        Number(
          readFileSync(`/proc/${name}/stat`, 'utf8')
            .replace(/^.*\) /s, '')
            .split(' ')[1],
        ),
      );
    } catch {
      // It has ended.
    }
  }
  const family = [pid];
  for (const member of family) for (const [child, parent] of parents) if (parent === member) family.push(child);
  return family;
}

class Bench {
  readonly #lab: LabResult;
  readonly #ui: number;
  readonly #screen: string;
  readonly #seconds: number;
  readonly #headers: { readonly authorization: string };

  private constructor(lab: LabResult, ui: number, screen: string, seconds: number, token: string) {
    this.#lab = lab;
    this.#ui = ui;
    this.#screen = screen;
    this.#seconds = seconds;
    this.#headers = { authorization: `Bearer ${token}` };
  }

  static async of(lab: LabResult, screen: string, seconds: number): Promise<Bench> {
    const ui = readRecord(lab.id)?.processes.find(({ argv }) => argv.includes('ui'))?.pid;
    if (lab.page === null || ui === undefined) throw new WeftError('WEFT_LAB_FAILED', 'the lab has no page');
    const token = new URLSearchParams(new URL(lab.page).hash.slice(1)).get('token')!;
    return new Bench(lab, ui, screen, seconds, token);
  }

  /** What the page asks for while it is open. */
  async questions(lengthMs: number): Promise<Questions> {
    await using opened = await this.#open();
    const asked: { atMs: number; path: string }[] = [];
    const from = performance.now();
    opened.page.on('request', (request) => {
      const { pathname, search } = new URL(request.url());
      asked.push({ atMs: performance.now() - from, path: pathname + search });
    });
    await delay(lengthMs);
    return { lengthMs, asked: [...asked] };
  }

  async sample(arm: Arm, questions: Questions): Promise<Sample> {
    await using _reader = arm === 'read' ? this.#read(questions) : undefined;
    await using opened = arm === 'open' ? await this.#open() : undefined;
    await delay(SETTLE_MS);
    const browser = opened === undefined ? [] : familyOf(opened.pid);
    const agents = this.#lab.hosts.map(({ agent }) => agent!.pid);
    const used = (): number[] =>
      [agents, [this.#ui], browser].map((pids) => pids.reduce((sum, pid) => sum + cpuNsOf(pid), 0));
    const [before, from] = [used(), performance.now()];
    await delay(this.#seconds * 1_000);
    const spentNs = (performance.now() - from) * 1e6;
    const [ofAgents, ofUi, ofBrowser] = used().map((ns, index) => (ns - before[index]!) / spentNs);
    return { agents: ofAgents!, ui: ofUi!, browser: ofBrowser!, gbps: await this.#throughput() };
  }

  async #throughput(): Promise<number> {
    const [client, server] = this.#lab.hosts.map(({ containers }) => containers[0]!);
    await using iperf = await start(['iperf3', '-s', '-1', '--forceflush'], { netns: server!.namespace });
    await saysReady(iperf, /listening on/);
    const argv = ['iperf3', '-c', server!.address!, '-t', String(this.#seconds), '--json'];
    const { stdout } = await run(argv, { netns: client!.namespace, timeoutMs: PATIENCE_MS });
    const { end } = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
    return end.sum_received.bits_per_second / 1e9;
  }

  /** Asks as the page does, again and again. */
  #read({ lengthMs, asked }: Questions): AsyncDisposable {
    const over = new AbortController();
    const { signal } = over;
    const ask = async (path: string): Promise<void> => {
      const answer = await fetch(new URL(path, this.#lab.page!), { headers: this.#headers, signal });
      await answer.arrayBuffer();
    };
    const reading = (async () => {
      for (let from = performance.now(); ; from += lengthMs) {
        for (const { atMs, path } of asked) {
          await delay(Math.max(0, from + atMs - performance.now()), undefined, { signal });
          void ask(path).catch(() => undefined);
        }
        await delay(Math.max(0, from + lengthMs - performance.now()), undefined, { signal });
      }
    })().catch(() => undefined);
    return {
      async [Symbol.asyncDispose]() {
        over.abort();
        await reading;
      },
    };
  }

  async #open(screen = this.#screen): Promise<AsyncDisposable & { readonly page: Page; readonly pid: number }> {
    await using stack = new AsyncDisposableStack();
    // It runs as root, for which Chromium has no sandbox, and opens this machine's own page only.
    const server = await chromium.launchServer({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
    stack.defer(() => server.close());
    const browser: Browser = await chromium.connect(server.wsEndpoint());
    const page = await browser.newPage({ viewport: { width: 1280, height: 760 } });
    page.setDefaultTimeout(PATIENCE_MS);
    const address = new URL(this.#lab.page!);
    address.pathname = screen;
    await page.goto(address.href);
    await page.getByText(`${this.#lab.hosts.length} hosts, `).first().waitFor();
    const held = stack.move();
    return { page, pid: server.process().pid!, [Symbol.asyncDispose]: () => held.disposeAsync() };
  }

  /** Milliseconds from a firewall rule on the first host until its agent says so, and until the cell is red. */
  async fault(): Promise<{ readonly known: number; readonly red: number }> {
    await using opened = await this.#open('/matrix');
    const { page } = opened;
    const healthy = page.getByText(`${this.#lab.hosts.length} hosts, no problem`);
    await healthy.waitFor();
    const [h1, h2] = [this.#lab.hosts[0]!, this.#lab.hosts[1]!];
    const rule = ['OUTPUT', '-p', 'udp', '-d', h2.address, '--dport', '8285', '-j', 'DROP'];
    const iptables = (verb: string): Promise<unknown> =>
      run(['iptables', '-w', '10', verb, ...rule], { netns: h1.namespace });
    const knows = async (): Promise<boolean> => {
      const url = new URL(`/hosts/${h1.name}/api/v1/peers`, this.#lab.page!);
      const answer = await fetch(url, { headers: this.#headers });
      const { peers } = (await answer.json()) as Answer<'/peers'>;
      const peer = peers.find(({ publicAddresses }) => publicAddresses.includes(h2.address));
      return peer?.probe !== undefined && peer.probe.rttMs === undefined;
    };
    await page.evaluate(SEES_RED);
    await iptables('-I');
    const from = Date.now();
    try {
      while (!(await knows())) {
        if (Date.now() - from > PATIENCE_MS) throw new WeftError('WEFT_LAB_FAILED', 'the fault was not found');
        await delay(LOOK_MS);
      }
      const known = Date.now() - from;
      return { known, red: ((await page.evaluate('globalThis.redAtMs')) as number) - from };
    } finally {
      await iptables('-D');
      await healthy.waitFor();
    }
  }
}

interface Figures {
  readonly machine: string;
  /** Of the machine, over a minute, when the measurement began. */
  readonly load: number;
  readonly screen: string;
  readonly requestsPerSecond: number;
  readonly arms: Readonly<Record<Arm, Readonly<Record<keyof Sample, Summary>>>>;
  /** Of single rounds: throughput with the page, of that without. */
  readonly throughputRatio: Readonly<Record<Exclude<Arm, 'closed'>, Summary>>;
  /** Of single rounds: processor time of agents and weft ui with the page, less that without, in parts of one core. */
  readonly addedCpu: Readonly<Record<Exclude<Arm, 'closed'>, Summary>>;
  /** Milliseconds. */
  readonly faultKnown: Summary;
  readonly faultRed: Summary;
}

async function measure(bench: Bench, rounds: number, faults: number, screen: string): Promise<Figures> {
  const load = loadavg()[0]!;
  const questions = await bench.questions(5_000);
  const samples: Record<Arm, Sample[]> = { closed: [], read: [], open: [] };
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < ARMS.length; turn++) {
      const arm = ARMS[(round + turn) % ARMS.length]!;
      const sample = await bench.sample(arm, questions);
      samples[arm].push(sample);
      process.stderr.write(`round ${round + 1}, ${arm}: ${sample.gbps.toFixed(2)} Gbit/s\n`);
    }
  }
  const found: { known: number; red: number }[] = [];
  for (let fault = 0; fault < faults; fault++) found.push(await bench.fault());
  const all = (arm: Arm, figure: keyof Sample): Summary => summarise(samples[arm].map((sample) => sample[figure]));
  const ofRounds = (arm: Arm, compare: (with_: Sample, without: Sample) => number): Summary =>
    summarise(samples[arm].map((sample, round) => compare(sample, samples.closed[round]!)));
  const arms = Object.fromEntries(
    ARMS.map((arm) => [
      arm,
      { gbps: all(arm, 'gbps'), agents: all(arm, 'agents'), ui: all(arm, 'ui'), browser: all(arm, 'browser') },
    ]),
  ) as unknown as Figures['arms'];
  const ratio = (arm: Arm): Summary => ofRounds(arm, (one, other) => one.gbps / other.gbps);
  const added = (arm: Arm): Summary => ofRounds(arm, (one, other) => one.agents + one.ui - other.agents - other.ui);
  return {
    ...{ machine: describeMachine(), load, screen, arms },
    requestsPerSecond: (questions.asked.length * 1_000) / questions.lengthMs,
    throughputRatio: { read: ratio('read'), open: ratio('open') },
    addedCpu: { read: added('read'), open: added('open') },
    faultKnown: summarise(found.map(({ known }) => known)),
    faultRed: summarise(found.map(({ red }) => red)),
  };
}

function tableOf(figures: Figures): string {
  const range = ({ median, min, max }: Summary, show: (value: number) => string): string =>
    `${show(median)} <sub>${show(min)}–${show(max)}</sub>`;
  const percent = (value: number): string => `${(value * 100).toFixed(1)} %`;
  const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;
  const rows = ARMS.map((arm) => {
    const { gbps, agents, ui, browser } = figures.arms[arm];
    const compared =
      arm === 'closed'
        ? ['', '']
        : [range(figures.throughputRatio[arm], (value) => value.toFixed(3)), range(figures.addedCpu[arm], percent)];
    const cells = [
      range(gbps, (value) => value.toFixed(2)),
      compared[0],
      range(agents, percent),
      range(ui, percent),
      compared[1],
    ];
    return `| ${arm} | ${cells.join(' | ')} | ${arm === 'open' ? range(browser, percent) : ''} |`;
  });
  return [
    '| the page is | TCP, Gbit/s | of closed | agents | weft ui | more than closed | Chromium |',
    '|---|---|---|---|---|---|---|',
    ...rows,
    '',
    `From a fault to the agent that knows it: ${range(figures.faultKnown, seconds)}. To the red cell: ${range(figures.faultRed, seconds)}.`,
    '',
    `Screen ${figures.screen}, ${figures.requestsPerSecond.toFixed(1)} requests a second, ${figures.arms.closed.gbps.runs.length} rounds; ${figures.machine}, load ${figures.load.toFixed(1)} at the beginning.`,
    '',
  ].join('\n');
}

try {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '8' },
      faults: { type: 'string', default: '3' },
      screen: { type: 'string', default: '/map' },
      json: { type: 'boolean', default: false },
    },
  });
  const { stdout } = await run([WEFT, 'lab', '--keep', '--json']);
  const lab = JSON.parse(stdout) as LabResult;
  try {
    const bench = await Bench.of(lab, values.screen, Number(values.seconds));
    const figures = await measure(bench, Number(values.rounds), Number(values.faults), values.screen);
    process.stdout.write(values.json ? `${JSON.stringify(figures)}\n` : tableOf(figures));
  } finally {
    await run([WEFT, 'lab', 'down', lab.id]);
  }
} catch (error) {
  process.stderr.write(`weft: ${describeError(error)}\n`);
  process.exitCode = 1;
}
