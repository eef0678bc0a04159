import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { PingReport } from '../../src/cmd/weft/ping-report.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { addressOf, Overlay } from './overlay.ts';
import { eventuallyHolds } from './waiting.ts';

const signal = AbortSignal.timeout(600_000);
const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));

interface Ping {
  readonly exitCode: number;
  readonly stdout: string;
}

describe('weft ping', () => {
  let overlay: Overlay;
  before(async () => {
    overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, underlay: 'native' }, signal);
  });
  after(async () => {
    await overlay?.[Symbol.asyncDispose]();
  });
  const host = (i: number): LabHost => overlay.topology.hosts[i]!;
  const subnet = (i: number): string => formatPrefix4(host(i).network!.subnet);
  const sh = (at: LabHost, command: string) => overlay.topology.exec(at, ['sh', '-ec', command]);

  function commandOf(from: LabHost, words: readonly string[]): string[] {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', WEFT, 'ping', ...words];
    return [...argv, '--subnet-file', `${from.stateDirectory}/subnet.env`, '--interval', '0.2'];
  }

  async function ping(from: LabHost, ...words: string[]): Promise<Ping> {
    const options = { okExitCodes: [0, 1, 2], timeoutMs: 180_000, signal };
    const { stdout, exitCode } = await overlay.topology.exec(from, commandOf(from, words), options);
    return { exitCode, stdout };
  }

  async function pingJson(from: LabHost, ...words: string[]): Promise<PingReport> {
    const { stdout, exitCode } = await ping(from, ...words, '--json');
    const report = JSON.parse(stdout) as PingReport;
    assert.equal(exitCode, report.ok ? 0 : 1, stdout);
    return report;
  }

  it('measures a healthy peer from both sides, by subnet and by host, with path and MTU', async () => {
    for (const [from, to] of [
      [0, 1],
      [1, 0],
    ] as const) {
      for (const word of [subnet(to), formatIpv4(host(to).address)]) {
        await eventuallyHolds(async () => {
          const { exitCode, stdout } = await ping(host(from), word, '--count', '3');
          assert.equal(exitCode, 0, stdout);
          const lines = stdout.split('\n');
          assert.equal(lines[0], `PING ${subnet(to)} on ${formatIpv4(host(to).address)}`);
          assert.match(lines[3]!, /^seq=3 {2}overlay [\d.]+ ms {2}underlay [\d.]+ ms {2}path forwarder$/);
          assert.match(stdout, /^overlay {3}3\/3 answered, 0% loss, min\/avg\/max [\d.]+\/[\d.]+\/[\d.]+ ms$/m);
          assert.match(stdout, /^underlay {2}3\/3 answered/m);
          assert.match(stdout, /^MTU {7}overlay 1472, underlay 1500$/m);
          assert.ok(lines.every((line) => line.length <= 80));
        });
      }
    }
  });

  it('tells a container that does not answer from a host that does not', async () => {
    const container = overlay.topology.hosts[1]!.containers[0]!;
    await eventuallyHolds(async () => {
      const report = await pingJson(host(0), addressOf(container), '--count', '2');
      assert.deepEqual([report.ok, report.name, report.overlay.answered], [true, addressOf(container), 2]);
    });
    const absent = addressOf(container).replace(/\d+$/, '250');
    await eventuallyHolds(async () => {
      const { ok, overlay: through, underlay, problems } = await pingJson(host(0), absent, '--count', '1');
      assert.deepEqual([ok, through.answered, underlay?.answered], [false, 0, 1]);
      assert.deepEqual(
        problems.map(({ fault }) => fault),
        ['container-silent'],
      );
    });
  });

  it('says which of the two ways has no answer, and that a longer packet does not pass', async () => {
    const table = (rule: string): string =>
      `nft add table inet t; for hook in input output; do nft "add chain inet t $hook { type filter hook $hook priority 0; }"; nft "add rule inet t $hook udp dport 8285 ${rule}"; done`;
    await sh(host(1), table('drop'));
    await eventuallyHolds(async () => {
      const { exitCode, stdout } = await ping(host(0), subnet(1), '--count', '2');
      assert.equal(exitCode, 1);
      assert.match(stdout, /^seq=1 {2}overlay no answer {2}underlay [\d.]+ ms {2}path forwarder$/m);
      assert.match(stdout, /^overlay {3}0\/2 answered, 100% loss$/m);
      assert.match(stdout, /^underlay {2}2\/2 answered, 0% loss/m);
      assert.match(stdout, /^✖ tunnel-blocked: /m);
    });
    await sh(host(1), `nft delete table inet t; ${table('meta length gt 1300 drop')}`);
    await eventuallyHolds(async () => {
      const { ok, overlay: through, mtu, problems } = await pingJson(host(0), subnet(1), '--count', '2');
      assert.deepEqual([ok, through.answered, problems.map(({ fault }) => fault)], [false, 2, ['mtu-blackhole']]);
      // 28 bytes of headers are in front of the inner packet; the search ends within two bytes.
      assert.ok(mtu.overlayBytes! >= 1_270 && mtu.overlayBytes! <= 1_272, String(mtu.overlayBytes));
    });
    await sh(host(1), 'nft delete table inet t');
  });

  it('with --until-fast, stops at the fast path, and fails where there is none', async () => {
    const { ok, rounds, problems } = await pingJson(host(0), subnet(1), '--until-fast', '--count', '3');
    assert.equal(ok, false);
    assert.equal(rounds.length, 3);
    assert.ok(problems.some(({ fault }) => fault === 'not-fast'));
    for (const [index, agent] of [...overlay.agents].entries()) {
      await agent.child[Symbol.asyncDispose]();
      await overlay.startAgent(host(index), signal, ['--fast-path=auto']);
    }
    await eventuallyHolds(async () => {
      const report = await pingJson(host(0), subnet(1), '--until-fast', '--count', '100');
      assert.deepEqual([report.ok, report.path], [true, 'fast-path']);
      assert.ok(report.rounds.length < 100);
    });
  });

  it('ends with a summary of what was sent when it is stopped', async () => {
    const out = `${host(0).stateDirectory}/ping.out`;
    const command = commandOf(host(0), [subnet(1), '--count', '10000']).join(' ');
    const script = `${command} > ${out} & until grep -q seq=2 ${out}; do sleep 0.1; done; kill -TERM $!; wait $! || true; cat ${out}`;
    const { stdout } = await sh(host(0), script);
    const [, answered, sent] = /^overlay {3}(\d+)\/(\d+) answered/m.exec(stdout) ?? [];
    assert.ok(Number(sent) >= 2 && Number(sent) < 10_000 && Number(answered) <= Number(sent), stdout);
    assert.doesNotMatch(stdout, /^MTU/m);
  });

  it('exits with 2 when the target is no peer', async () => {
    assert.deepEqual(await ping(host(0), '192.0.2.1'), { exitCode: 2, stdout: '' });
  });

  it('needs no agent, and then does not know the path', async () => {
    await overlay.agents[0]!.child[Symbol.asyncDispose]();
    const report = await pingJson(host(0), subnet(1), '--count', '1');
    assert.equal(report.path, undefined);
    assert.equal(report.underlay?.answered, 1);
  });
});
