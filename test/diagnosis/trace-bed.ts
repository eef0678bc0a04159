import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { TraceReport } from '../../src/cmd/weft/trace-report.ts';
import type { TraceVerdict } from '../../src/diagnosis/trace.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabContainer, type LabHost, type Place, Topology } from '../../src/lab/topology.ts';
import { weft } from '../netns/lab-command.ts';
import { addressOf, Overlay, ping } from '../netns/overlay.ts';
import { eventuallyHolds } from '../netns/waiting.ts';

const signal: AbortSignal = AbortSignal.timeout(600_000);
export const DUAL_STACK = { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd10::/48' };

export interface Traced {
  readonly report: TraceReport;
  readonly exitCode: number | null;
}

/** Two hosts with a container each, and the commands of the first. */
export class TraceBed implements AsyncDisposable {
  readonly overlay: Overlay;

  private constructor(overlay: Overlay) {
    this.overlay = overlay;
  }

  /** @param netConf with IPv6, where it says so: hosts and containers have addresses of both families then. */
  static async create(netConf: object, agentFlags: readonly string[] = []): Promise<TraceBed> {
    await using stack = new AsyncDisposableStack();
    const topology = stack.use(
      await Topology.create({ hosts: 2, containersPerHost: 1, underlay: 'native', purpose: 'test' }, signal),
    );
    for (const host of topology.hosts) {
      await topology.ipBatch(host, `addr add ${underlay6(host)}/64 dev eth0 nodad\n`, signal);
      await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1'], { signal });
    }
    const store = await openSubnetStore('local', topology, JSON.stringify(netConf), signal);
    const overlay = Overlay.on(topology, store, agentFlags);
    await overlay.startAll(signal);
    for (const host of topology.hosts) await attachIpv6(topology, host);
    const bed = new TraceBed(overlay);
    await eventuallyHolds(async () => assert.ok((await ping(topology, bed.from, bed.to)).ok));
    if (bed.to6 !== undefined)
      await eventuallyHolds(async () => assert.ok((await ping(topology, bed.from, bed.to6!)).ok));
    stack.move();
    return bed;
  }

  host(i: number): LabHost {
    return this.overlay.topology.hosts[i]!;
  }

  get from(): LabContainer {
    return this.host(0).containers[0]!;
  }

  get far(): LabContainer {
    return this.host(1).containers[0]!;
  }

  get to(): string {
    return addressOf(this.far);
  }

  get from6(): string | undefined {
    return address6Of(this.host(0));
  }

  get to6(): string | undefined {
    return address6Of(this.host(1));
  }

  get farAddress(): string {
    return formatIpv4(this.host(1).address);
  }

  command(...words: string[]): string[] {
    const [here, there] = [this.host(0).stateDirectory, this.host(1).stateDirectory];
    const socket = `${there}/weft.sock`;
    return [...weft, 'trace', ...words, '--subnet-file', `${here}/subnet.env`, '--socket', socket, '--wait', '1'];
  }

  trace(...words: string[]): Promise<Traced> {
    return this.#run(this.command(...words, '--json'));
  }

  async #run(argv: readonly string[]): Promise<Traced> {
    const options = { okExitCodes: 'any' as const, timeoutMs: 60_000, signal };
    const { stdout, stderr, exitCode } = await this.overlay.topology.exec(this.host(0), argv, options);
    assert.notEqual(stdout, '', stderr);
    return { report: JSON.parse(stdout) as TraceReport, exitCode };
  }

  /** As if the far host were another machine: nothing of it is seen but its agent's API. */
  async traceRemote(tokenFile: string, port: number, ...words: string[]): Promise<Traced> {
    const api = ['--host', `http://${this.farAddress}:${port}`, '--token-file', tokenFile];
    const own = ['--subnet-file', `${this.host(0).stateDirectory}/subnet.env`, '--wait', '1', '--json'];
    const hidden = ['unshare', '--mount', '--pid', '--fork', '--mount-proc', 'sh', '-ec'];
    const script = 'mount -t tmpfs none /run/netns; exec "$@"';
    return await this.#run([...hidden, script, 'sh', ...weft, 'trace', ...words, ...api, ...own]);
  }

  sh(at: Place, command: string) {
    return this.overlay.topology.exec(at, ['sh', '-ec', command]);
  }

  /** While the fault is there, the trace says this of it. */
  async names(fault: Fault, words: readonly string[], expected: Expected): Promise<TraceVerdict> {
    await this.sh(fault.at, fault.make);
    try {
      return await eventuallyHolds(async () => {
        const { report, exitCode } = await this.trace(...words);
        const { host, hop, reason, outcome } = report.verdict;
        assert.deepEqual({ outcome, host, hop, reason }, expected, JSON.stringify(report, undefined, 1));
        assert.equal(exitCode, 1);
        return report.verdict;
      });
    } finally {
      await this.sh(fault.at, fault.mend);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.overlay[Symbol.asyncDispose]();
  }
}

export function underlay6({ index }: LabHost): string {
  return `fd77::${index + 1}`;
}

/** The bridge's address of IPv6; `undefined` when the network has none. */
function gateway6Of({ stateDirectory }: LabHost): string | undefined {
  return /^FLANNEL_IPV6_SUBNET=(.+)\/64$/m.exec(readFileSync(`${stateDirectory}/subnet.env`, 'utf8'))?.[1];
}

function address6Of(host: LabHost): string | undefined {
  return gateway6Of(host)?.replace(/1$/, '2');
}

async function attachIpv6(topology: Topology, host: LabHost): Promise<void> {
  const gateway = gateway6Of(host);
  if (gateway === undefined) return;
  await topology.ipBatch(host, `addr add ${gateway}/64 dev cni0 nodad\n`, signal);
  const inside = [`addr add ${address6Of(host)}/64 dev eth0 nodad`, `route add default via ${gateway}`];
  await topology.ipBatch(host.containers[0]!, `${inside.join('\n')}\n`, signal);
}

export interface Fault {
  readonly at: Place;
  readonly make: string;
  readonly mend: string;
}

export interface Expected {
  readonly outcome: string;
  readonly host: string;
  readonly hop: string;
  readonly reason: string;
}

export const drop = (hook: string, rule: string, family = 'inet'): Pick<Fault, 'make' | 'mend'> => ({
  make: `nft add table ${family} t; nft 'add chain ${family} t c { type filter hook ${hook} priority 0; }'; nft add rule ${family} t c ${rule} drop`,
  mend: `nft delete table ${family} t`,
});

export function stops({ hops }: TraceReport, leg: string): string[] {
  return hops.filter((hop) => hop.leg === leg).map(({ host, device, direction }) => `${host} ${device} ${direction}`);
}
