import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { TraceReport } from '../../src/cmd/weft/trace-report.ts';
import { eventuallyHolds } from '../netns/waiting.ts';
import { DUAL_STACK, drop, type Fault, TraceBed, underlay6 } from './trace-bed.ts';

const PORT = 8_287;
const STRANGER = '10.244.240.9';

describe('weft trace to another machine, of which it has the API', () => {
  const directory = mkdtempSync(join(tmpdir(), 'weft-trace-'));
  const tokenFile = join(directory, 'token');
  writeFileSync(tokenFile, 'token-of-the-agents-16\n');
  let bed: TraceBed;
  before(async () => {
    const flags = ['--api-listen', `:${PORT}`, '--api-token-file', tokenFile];
    bed = await TraceBed.create({ ...DUAL_STACK, Backend: { Type: 'udp' } }, flags);
  });
  after(async () => {
    await bed?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });

  const trace = (to = bed.to) => bed.traceRemote(tokenFile, PORT, 'host', to);

  async function during(fault: Fault, holds: (report: TraceReport) => void, to = bed.to): Promise<void> {
    await bed.sh(fault.at, fault.make);
    try {
      await eventuallyHolds(async () => holds((await trace(to)).report));
    } finally {
      await bed.sh(fault.at, fault.mend);
    }
  }

  it('says what it saw of whom', async () => {
    const { report, exitCode } = await trace();
    assert.deepEqual(report.far, { frames: false, agent: true }, JSON.stringify(report));
    assert.deepEqual([exitCode, report.verdict.outcome, report.copies], [0, 'answered', 0]);
    assert.ok(report.hops.every(({ host }) => host === 'this host'));
  });

  it('names the firewall of the far host by what its kernel counts, and no drops of other packets', async () => {
    await using _others = await bed.overlay.topology.start(
      bed.host(0),
      ['ping', '-q', '-i', '0.1', '-I', 'flannel0', '10.244.250.1'],
      { stdout: 'ignore' },
    );
    for (const [fault, reason] of [
      [drop('input', 'udp dport 8285'), 'host:filtered-in'],
      [drop('forward', `ip daddr ${bed.to}`), 'host:filtered-out'],
    ] as const) {
      await during({ at: bed.host(1), ...fault }, (report) => {
        const text = JSON.stringify(report, undefined, 1);
        const { host, hop, reason: named } = report.verdict;
        assert.deepEqual([host, hop, named], [bed.farAddress, 'host', reason], text);
        assert.deepEqual(
          report.agentDrops.map(({ host: where, side }) => [where, side]),
          [[bed.farAddress, 'kernel']],
          text,
        );
        assert.ok(
          report.notes.some((note) => /dropped meanwhile, of other packets: .*no-route \(tx\) at this host/.test(note)),
          text,
        );
      });
    }
  });

  it('names the firewall of the far host that drops IPv6 by the counters of IPv6', async () => {
    const far = underlay6(bed.host(1));
    const holds = (report: TraceReport): void => {
      const { host, hop, reason } = report.verdict;
      assert.deepEqual([host, hop, reason], [far, 'host', 'host:filtered-out'], JSON.stringify(report, undefined, 1));
    };
    await during({ at: bed.host(1), ...drop('forward', `ip6 daddr ${bed.to6}`) }, holds, bed.to6);
  });

  it('names the agent of the far host that refuses the source', async () => {
    const device = 'dev flannel0';
    const chain = '{ type filter hook output priority -300; }';
    const fault = {
      at: bed.host(0),
      make: `ip addr add ${STRANGER}/32 dev lo; ip route add ${bed.to}/32 ${device} src ${STRANGER}
        nft add table inet t; nft 'add chain inet t c ${chain}'; nft add rule inet t c ip saddr ${STRANGER} notrack`,
      mend: `nft delete table inet t; ip route del ${bed.to}/32 ${device}; ip addr del ${STRANGER}/32 dev lo`,
    };
    await during(fault, (report) => {
      const { host, hop, reason } = report.verdict;
      const text = JSON.stringify(report, undefined, 1);
      assert.deepEqual([host, hop, reason], [bed.farAddress, 'agent', 'agent:spoofed-source'], text);
    });
  });

  it('says that the network has lost it when nothing there has counted it', async () => {
    await during({ at: bed.host(1), ...drop('ingress device eth0', 'udp dport 8285', 'netdev') }, (report) => {
      const { host, hop, reason, text } = report.verdict;
      assert.deepEqual([host, hop, reason], ['this host', 'host eth0', 'unseen'], JSON.stringify(report, undefined, 1));
      assert.match(text, /has received none of its copies/);
    });
  });
});
