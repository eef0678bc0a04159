import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { sendFile } from '../../src/lab/checks.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually, LineFeed } from './waiting.ts';

const NETWORK = '10.244.0.0/16';
/**
 * The promise is one second; a test must also pass on a machine that is busy with something else. Less than the half minute after
 * which the agent looks without having been told.
 */
const DEADLINE_MS = 25_000;

describe('what somebody changes behind the agent’s back', () => {
  let overlay: Overlay;
  let topology: Topology;
  let host: LabHost;
  let monitor: LineFeed;
  const signal = new AbortController().signal;

  before(async () => {
    overlay = await Overlay.create(
      { hosts: 2, containersPerHost: 1, agentFlags: ['--iptables-resync', '1', '--fast-path', 'auto'] },
      signal,
    );
    ({ topology } = overlay);
    host = topology.hosts[0]!;
    const child = await topology.start(host, ['ip', '-o', 'monitor', 'label', 'link', 'address', 'route']);
    monitor = new LineFeed(child.stdout!);
    // It does not say when it has begun to listen: make something it must report.
    await eventually('ip monitor listens', async () => {
      await topology.ipBatch(host, 'link set lo down\nlink set lo up\n');
      return monitor.mark > 0 || undefined;
    });
  });
  after(() => overlay?.[Symbol.asyncDispose]());

  async function expectPings(): Promise<void> {
    const [a, b] = [topology.hosts[0]!.containers[0]!, topology.hosts[1]!.containers[0]!];
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      await eventually(`${from.name} reaches ${to.name}`, async () => {
        const { ok } = await ping(topology, from, addressOf(to));
        return ok || undefined;
      });
    }
  }

  const isRoute = (text: string): boolean =>
    text.startsWith(`[ROUTE]${NETWORK} dev flannel0`) && text.includes('proto 241');
  const isAddress = (text: string): boolean =>
    text.startsWith('[ADDR]') && /: flannel0 +inet 10\.244\.\d+\.0\/32 /.test(text);

  /** Does it and waits for all of `signs`, in any order, after the `loss`. */
  async function heal(
    t: TestContext,
    command: string,
    loss: (text: string) => boolean,
    ...signs: ((text: string) => boolean)[]
  ): Promise<void> {
    const from = monitor.mark;
    await topology.ipBatch(host, `${command}\n`);
    const lost = await monitor.find(loss, from, DEADLINE_MS);
    const at = monitor.seen.indexOf(lost) + 1;
    const back = await Promise.all(signs.map((sign) => monitor.find(sign, at, DEADLINE_MS)));
    const ms = Math.max(...back.map(({ atMs }) => atMs)) - lost.atMs;
    t.diagnostic(`${command}: back after ${ms.toFixed(0)} ms`);
    await expectPings();
  }

  it('puts a deleted route back', (t) =>
    heal(t, `route del ${NETWORK}`, (text) => text.startsWith(`[ROUTE]Deleted ${NETWORK} dev flannel0`), isRoute));

  it('puts a flushed address back, and the route that went with it', (t) =>
    heal(t, 'addr flush dev flannel0', (text) => /^\[ADDR\]Deleted .*flannel0 +inet /.test(text), isAddress, isRoute));

  it('sets a device that was taken down up again, with its route', (t) =>
    heal(
      t,
      'link set flannel0 down',
      (text) => /^\[LINK\]\d+: flannel0: <(?!.*[<,]UP[,>])/.test(text),
      (text) => /^\[LINK\]\d+: flannel0: <.*[<,]UP[,>]/.test(text),
      isRoute,
    ));

  it('sets the MTU back', (t) =>
    heal(
      t,
      'link set flannel0 mtu 1300',
      (text) => /^\[LINK\]\d+: flannel0: .* mtu 1300 /.test(text),
      (text) => /^\[LINK\]\d+: flannel0: .* mtu 1472 /.test(text),
    ));

  it('gives a device that was renamed its name back, with its route', (t) =>
    heal(
      t,
      'link set flannel0 name renamed',
      (text) => /^\[LINK\]\d+: renamed: /.test(text),
      (text) => /^\[LINK\]\d+: flannel0: <.*[<,]UP[,>].* mtu 1472 /.test(text),
      isRoute,
    ));

  it('makes a queue that was made shorter as long as before', async () => {
    await topology.ipBatch(host, 'link set flannel0 txqueuelen 100\n');
    // ip monitor does not say how long it is.
    await eventually('it holds 2,000 packets', async () => {
      const { stdout } = await topology.exec(host, ['cat', '/sys/class/net/flannel0/tx_queue_len']);
      return stdout.trim() === '2000' || undefined;
    });
  });

  it('takes a stray address of the overlay network away', async () => {
    const from = monitor.mark;
    await topology.ipBatch(host, 'addr add 10.244.99.1/24 dev flannel0\n');
    await monitor.find((text) => /^\[ADDR\]Deleted .*flannel0 +inet 10\.244\.99\.1\/24 /.test(text), from, DEADLINE_MS);
    await expectPings();
  });

  it('makes a deleted device again, with address and route', async (t) => {
    await heal(
      t,
      'link del flannel0',
      (text) => /^\[LINK\]Deleted \d+: flannel0: /.test(text),
      (text) => /^\[LINK\]\d+: flannel0: <.*[<,]UP[,>].* mtu 1472 /.test(text),
      isAddress,
      isRoute,
    );
    const { pid } = overlay.agents[0]!.child;
    assert.ok(overlay.agents[0]!.child.kill('SIGCONT'), `agent ${pid} is the same process as before`);
    const log = await overlay.log(host);
    assert.match(log, /the TUN device is gone/);
  });

  it('has the fast path on the device that was made again', async () => {
    const [a, b] = [topology.hosts[0]!.containers[0]!, topology.hosts[1]!.containers[0]!];
    const metrics = async (): Promise<{ isOpen: boolean; reads: number }> => {
      const { stdout } = await topology.exec(host, ['socat', '-t', '5', 'STDIO', 'TCP4:127.0.0.1:8081'], {
        stdin: 'GET /metrics HTTP/1.0\r\n\r\n',
      });
      const reads = /^weft_forwarder_operations_total\{operation="txReads"\} (\d+)$/m.exec(stdout)?.[1];
      return { isOpen: /^weft_fast_path 1$/m.test(stdout), reads: Number(reads) };
    };
    // Its socket is another one as well, so the two hosts first ask each other again.
    await eventually('a file takes the fast path', async () => {
      const before = await metrics();
      const { bytes, receivedBytes } = await sendFile(topology, a, b, 16 * 1024 * 1024);
      assert.equal(receivedBytes, bytes);
      const after = await metrics();
      // The forwarder would read 250 super-packets at the least.
      return after.isOpen && after.reads - before.reads < 50 ? true : undefined;
    });
  });

  it('makes it again however often it is deleted, and stays one process', async () => {
    for (let round = 0; round < 3; round++) {
      const from = monitor.mark;
      await topology.ipBatch(host, 'link del flannel0\n');
      await monitor.find(isRoute, from, DEADLINE_MS);
    }
    await expectPings();
  });

  it('puts deleted and foreign iptables rules right', async (t) => {
    const rules = async (): Promise<string> => {
      const lists = ['FLANNEL-POSTRTG', 'POSTROUTING'].map((chain) =>
        topology.exec(host, ['iptables', '-w', '-t', 'nat', '-S', chain]),
      );
      return (await Promise.all(lists)).map(({ stdout }) => stdout).join('');
    };
    const before = await rules();
    assert.match(before, /^-A FLANNEL-POSTRTG .*-j MASQUERADE/m);
    assert.match(before, /^-A POSTROUTING .*-j FLANNEL-POSTRTG$/m);
    for (const change of [
      ['-D', 'FLANNEL-POSTRTG', '1'],
      ['-F', 'FLANNEL-POSTRTG'],
      ['-I', 'FLANNEL-POSTRTG', '-j', 'RETURN'],
      ['-D', 'POSTROUTING', '1'],
    ]) {
      await topology.exec(host, ['iptables', '-w', '-t', 'nat', ...change]);
      const startedAt = performance.now();
      await eventually(change.join(' '), async () => (await rules()) === before || undefined);
      t.diagnostic(`iptables ${change.join(' ')}: right after ${(performance.now() - startedAt).toFixed(0)} ms`);
    }
    await expectPings();
  });
});
