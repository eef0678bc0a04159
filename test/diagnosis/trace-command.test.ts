import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { TraceReport } from '../../src/cmd/weft/trace-report.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { LabContainer, LabHost, Place } from '../../src/lab/topology.ts';
import { weft } from '../netns/lab-command.ts';
import { addressOf, Overlay, ping } from '../netns/overlay.ts';
import { eventuallyHolds, LineFeed } from '../netns/waiting.ts';

const signal = AbortSignal.timeout(600_000);

interface Traced {
  readonly report: TraceReport;
  readonly exitCode: number | null;
}

/** Two hosts with a container each, and the commands of the first. */
class Bed implements AsyncDisposable {
  readonly overlay: Overlay;

  private constructor(overlay: Overlay) {
    this.overlay = overlay;
  }

  static async create(netConf?: string): Promise<Bed> {
    const options = { hosts: 2, containersPerHost: 1, underlay: 'native' as const, ...(netConf && { netConf }) };
    await using stack = new AsyncDisposableStack();
    const overlay = stack.use(await Overlay.create(options, signal));
    const bed = new Bed(overlay);
    await eventuallyHolds(async () => assert.ok((await ping(overlay.topology, bed.from, bed.to)).ok));
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

  get farAddress(): string {
    return formatIpv4(this.host(1).address);
  }

  command(...words: string[]): string[] {
    const [here, there] = [this.host(0).stateDirectory, this.host(1).stateDirectory];
    const socket = `${there}/weft.sock`;
    return [...weft, 'trace', ...words, '--subnet-file', `${here}/subnet.env`, '--socket', socket, '--wait', '1'];
  }

  async trace(...words: string[]): Promise<Traced> {
    const options = { okExitCodes: 'any' as const, timeoutMs: 60_000, signal };
    const { stdout, stderr, exitCode } = await this.overlay.topology.exec(
      this.host(0),
      this.command(...words, '--json'),
      options,
    );
    assert.notEqual(stdout, '', stderr);
    return { report: JSON.parse(stdout) as TraceReport, exitCode };
  }

  sh(at: Place, command: string) {
    return this.overlay.topology.exec(at, ['sh', '-ec', command]);
  }

  /** While the fault is there, the trace says this of it. */
  async names(fault: Fault, words: readonly string[], expected: Expected): Promise<void> {
    await this.sh(fault.at, fault.make);
    try {
      await eventuallyHolds(async () => {
        const { report, exitCode } = await this.trace(...words);
        const { host, hop, reason, outcome } = report.verdict;
        assert.deepEqual({ outcome, host, hop, reason }, expected, JSON.stringify(report, undefined, 1));
        assert.equal(exitCode, 1);
      });
    } finally {
      await this.sh(fault.at, fault.mend);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.overlay[Symbol.asyncDispose]();
  }
}

interface Fault {
  readonly at: Place;
  readonly make: string;
  readonly mend: string;
}

interface Expected {
  readonly outcome: string;
  readonly host: string;
  readonly hop: string;
  readonly reason: string;
}

const drop = (hook: string, rule: string): Pick<Fault, 'make' | 'mend'> => ({
  make: `nft add table inet t; nft 'add chain inet t c { type filter hook ${hook} priority 0; }'; nft add rule inet t c ${rule} drop`,
  mend: 'nft delete table inet t',
});

function stops({ hops }: TraceReport, leg: string): string[] {
  return hops.filter((hop) => hop.leg === leg).map(({ host, device, direction }) => `${host} ${device} ${direction}`);
}

describe('weft trace with the udp backend', () => {
  let bed: Bed;
  before(async () => {
    bed = await Bed.create();
  });
  after(async () => {
    await bed?.[Symbol.asyncDispose]();
  });

  it('shows each hop of a packet that is answered, on both hosts', async () => {
    const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to);
    assert.equal(exitCode, 0, JSON.stringify(report, undefined, 1));
    assert.equal(report.verdict.outcome, 'answered');
    assert.deepEqual(report.far, { frames: true, agent: true });
    const request = stops(report, 'request').filter((stop) => !stop.includes('veth'));
    for (const wanted of [
      'this host cni0 in',
      'this host flannel0 out',
      'this host eth0 out',
      `${bed.farAddress} eth0 in`,
      `${bed.farAddress} flannel0 in`,
      `${bed.farAddress} cni0 out`,
    ])
      assert.ok(request.includes(wanted), `${wanted} of ${request.join(', ')}`);
    const wire = report.hops.find(({ host, inner }) => host === 'this host' && inner !== undefined)!;
    assert.match(wire.packet.text, /:8285 > 192\.168\.77\.2:8285 udp/);
    assert.match(wire.inner!.text, new RegExp(`${addressOf(bed.from)} > ${bed.to} icmp echo ttl 62`));
    assert.ok(stops(report, 'answer').includes('this host flannel0 in'));
  });

  it('fits 80 columns, and takes a namespace or the host as its start', async () => {
    for (const from of [bed.from.namespace, 'host']) {
      const { stdout } = await bed.overlay.topology.exec(bed.host(0), bed.command(from, bed.to), { timeoutMs: 60_000 });
      assert.ok(
        stdout.split('\n').every((line) => [...line].length <= 80),
        stdout,
      );
      assert.match(stdout, /^✔ answered at this host/m);
    }
  });

  it('names a rule in the FORWARD hook', async () => {
    const fault = { at: bed.host(1), ...drop('forward', `ip daddr ${bed.to}`) };
    await bed.names(fault, [addressOf(bed.from), bed.to], {
      ...{ outcome: 'lost', host: bed.farAddress, hop: 'host flannel0', reason: 'netfilter' },
    });
  });

  it('names a firewall of the far host that drops the tunnel', async () => {
    const fault = { at: bed.host(1), ...drop('input', 'udp dport 8285') };
    await bed.names(fault, [addressOf(bed.from), bed.to], {
      ...{ outcome: 'lost', host: bed.farAddress, hop: 'host eth0', reason: 'netfilter' },
    });
  });

  it('names a missing route, in the container and on the host', async () => {
    const gateway = addressOf(bed.from).replace(/\d+$/, '1');
    const inContainer = { at: bed.from, make: 'ip route del default', mend: `ip route add default via ${gateway}` };
    await bed.names(inContainer, [bed.from.namespace, bed.to], {
      ...{ outcome: 'lost', host: 'this host', hop: `${bed.from.namespace} socket`, reason: 'no-route' },
    });
    const route = `unreachable ${bed.to}/32`;
    const onHost = { at: bed.host(0), make: `ip route add ${route}`, mend: `ip route del ${route}` };
    await bed.names(onHost, [addressOf(bed.from), bed.to], {
      ...{ outcome: 'lost', host: 'this host', hop: 'host cni0', reason: 'no-route' },
    });
  });

  it('names the agent that refuses the source of a packet', async () => {
    const gateway = addressOf(bed.from).replace(/\d+$/, '1');
    const fault = {
      at: bed.from,
      make: `ip addr add 10.244.77.9/32 dev eth0; ip route replace default via ${gateway} src 10.244.77.9`,
      mend: `ip route replace default via ${gateway}; ip addr del 10.244.77.9/32 dev eth0`,
    };
    const unfiltered = 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done';
    await bed.sh(bed.host(0), unfiltered);
    // Else this host would masquerade it.
    const hook = 'type filter hook prerouting priority -300';
    await bed.sh(
      bed.host(0),
      `nft add table inet t; nft 'add chain inet t c { ${hook}; }'; nft add rule inet t c ip saddr 10.244.77.9 notrack`,
    );
    await bed.names(fault, [bed.from.namespace, bed.to], {
      ...{ outcome: 'lost', host: bed.farAddress, hop: 'agent', reason: 'agent:spoofed-source' },
    });
    await bed.sh(bed.host(0), 'nft delete table inet t');
  });

  it('names the device that a packet is too long for', async () => {
    const fault = { at: bed.host(1), make: 'ip link set cni0 mtu 1300', mend: 'ip link set cni0 mtu 1472' };
    await bed.names(fault, [addressOf(bed.from), bed.to, '--size', '1400'], {
      ...{ outcome: 'lost', host: bed.farAddress, hop: 'host flannel0', reason: 'too-big' },
    });
  });

  it('tells a port without a listener from one with', async () => {
    for (const kind of ['tcp', 'udp']) {
      const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to, kind, '7777');
      assert.equal(exitCode, 1);
      const { outcome, host, reason } = report.verdict;
      assert.deepEqual([outcome, host, reason], ['refused', bed.farAddress, 'no-listener'], JSON.stringify(report));
    }
    await using _tcp = await bed.overlay.topology.start(bed.far, ['socat', 'TCP4-LISTEN:7777,fork', 'EXEC:cat'], {
      signal,
    });
    await using _udp = await bed.overlay.topology.start(bed.far, ['socat', '-u', 'UDP4-RECV:7777', '/dev/null'], {
      signal,
    });
    for (const [kind, outcome] of [
      ['tcp', 'answered'],
      ['udp', 'delivered'],
    ] as const) {
      await eventuallyHolds(async () => {
        const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to, kind, '7777');
        assert.deepEqual([report.verdict.outcome, exitCode], [outcome, 0], JSON.stringify(report));
      });
    }
  });

  it('says which half it saw, and refuses wrong usage', async () => {
    const argv = [...weft, 'trace', 'host', bed.to, '--subnet-file', `${bed.host(0).stateDirectory}/subnet.env`];
    const { stdout } = await bed.overlay.topology.exec(bed.host(0), argv, { timeoutMs: 60_000 });
    assert.match(stdout, /Note: the agent of 192\.168\.77\.2 was not asked/);
    for (const words of [
      ['host'],
      ['host', bed.to, 'sctp', '1'],
      ['nowhere', bed.to],
      ['host', '192.0.2.9'],
      ['--drops', 'host'],
    ]) {
      const { exitCode, stderr } = await bed.overlay.topology.exec(bed.host(0), bed.command(...words), {
        okExitCodes: 'any',
      });
      assert.equal(exitCode, 2, stderr);
    }
  });

  it('--drops shows what is dropped, and --live what passes each device', async () => {
    const follow = async (words: string[], find: (text: string) => boolean): Promise<void> => {
      await using child = await bed.overlay.topology.start(bed.host(0), bed.command(...words, '--json'), {
        stdout: 'pipe',
        stderr: 'pipe',
        signal,
      });
      const [said, told] = [new LineFeed(child.stdout!), new LineFeed(child.stderr!)];
      await told.find((text) => text.startsWith('weft trace: watches'));
      await ping(bed.overlay.topology, bed.from, bed.to, '-W', '1');
      await said.find(find);
      child.kill('SIGINT');
      assert.equal((await child.exited).code, 0);
    };
    await follow(['--live', 'icmp', 'and', 'host', bed.to], (text) => {
      const { device, direction, inner } = JSON.parse(text) as {
        device: string;
        direction: string;
        inner?: { text: string };
      };
      return device === 'eth0' && direction === 'out' && inner?.text.includes(`> ${bed.to} icmp echo`) === true;
    });
    const { make, mend } = drop('forward', `ip daddr ${bed.to}`);
    await bed.sh(bed.host(0), make);
    await follow(['--drops'], (text) => {
      const { reason, device, packet } = JSON.parse(text) as {
        reason: string;
        device: string;
        packet: { text: string };
      };
      return reason === 'NETFILTER_DROP' && device === 'cni0' && packet.text.includes(`> ${bed.to} icmp echo`);
    });
    await bed.sh(bed.host(0), mend);
  });
});

it('weft trace shows the hops of vxlan', async () => {
  await using bed = await Bed.create('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}');
  const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to);
  assert.equal(exitCode, 0, JSON.stringify(report, undefined, 1));
  const request = stops(report, 'request');
  for (const wanted of ['this host flannel.1 out', 'this host eth0 out', `${bed.farAddress} flannel.1 in`])
    assert.ok(request.includes(wanted), `${wanted} of ${request.join(', ')}`);
  const wire = report.hops.find(({ host, inner }) => host === 'this host' && inner !== undefined)!;
  assert.match(wire.packet.text, /> 192\.168\.77\.2:8472 udp/);
});
