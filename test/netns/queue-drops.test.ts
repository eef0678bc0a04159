import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { HEALTHZ_PORT } from './flanneld.ts';
import { addressOf, Overlay } from './overlay.ts';
import { eventually } from './waiting.ts';

/** Twice what flannel0's queue holds. */
const PACKETS = 4_000;

/** Above what the doctor takes for multicast of the kernel. */
const STRANGERS = 120;

describe('packets that the kernel drops at the device of a backend that it carries by itself', () => {
  it('for want of a forwarding entry are in /metrics, and in the doctor with what helps there', async () => {
    const netConf = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}';
    await using overlay = await Overlay.create(
      { hosts: 2, containersPerHost: 1, netConf },
      AbortSignal.timeout(120_000),
    );
    const { topology } = overlay;
    const [host] = topology.hosts;
    const dropped = async (): Promise<number> => {
      const metrics = await overlay.ask(host!, '/metrics');
      assert.doesNotMatch(metrics, /^weft_queue_dropped_packets_total\{queue="socket"\}/m);
      return Number(/^weft_queue_dropped_packets_total\{queue="device"\} (\d+)$/m.exec(metrics)?.[1]);
    };
    const { before } = await eventually('there is a series', async () => {
      const count = await dropped();
      return Number.isNaN(count) ? undefined : { before: count };
    });
    // Of hosts that are not there: the questions for their MAC addresses have nowhere to go.
    await topology.exec(host!, ['ip', 'route', 'add', '10.244.250.0/24', 'dev', 'flannel.1']);
    const send = `echo x | socat -u STDIN UDP4-SENDTO:10.244.250.$i:7777`;
    await topology.exec(host!, ['sh', '-c', `i=1; while [ $i -le ${STRANGERS} ]; do ${send}; i=$((i+1)); done`]);
    await eventually('they are counted', async () => (await dropped()) >= before + STRANGERS || undefined);
    const result = await overlay.examine(host!, 'queue-drops');
    assert.ok(result.status === 'warn', result.found);
    assert.match(result.found, /^flannel\.1 tx: \d+ of \d+$/);
    assert.match(result.remedy, /weft trace --drops/);
  });
});

describe('packets that the kernel drops before the agent sees them', () => {
  let overlay: Overlay;
  before(async () => {
    overlay = await Overlay.create({ hosts: 2, containersPerHost: 1 }, AbortSignal.timeout(120_000));
  });
  after(() => overlay?.[Symbol.asyncDispose]());

  it('for want of room in the queue of flannel0 are in /metrics', async () => {
    const { topology } = overlay;
    const [host] = topology.hosts;
    const { child } = overlay.agents[0]!;
    const to = addressOf(topology.containers[1]!);
    child.kill('SIGSTOP');
    try {
      const lines = 'x\\n'.repeat(1);
      const send = `i=0; while [ $i -lt ${PACKETS} ]; do printf '${lines}'; i=$((i+1)); done`;
      await topology.exec(topology.containers[0]!, [
        'sh',
        '-c',
        `${send} | socat -u -b 2 STDIN UDP4-SENDTO:${to}:7777`,
      ]);
    } finally {
      child.kill('SIGCONT');
    }
    await eventually('they are counted', async () => {
      const metrics = await overlay.ask(host!, '/metrics');
      const dropped = Number(/^weft_queue_dropped_packets_total\{queue="device"\} (\d+)$/m.exec(metrics)?.[1] ?? 0);
      assert.match(metrics, /^weft_queue_dropped_packets_total\{queue="socket"\} \d+$/m);
      return dropped > PACKETS / 4 || undefined;
    });
  });

  it('the agent listens for tunnelled datagrams and health checks, and for nothing else', async () => {
    const [host] = overlay.topology.hosts;
    const { stdout } = await overlay.topology.exec(host!, ['ss', '-Hlntup']);
    const listeners = stdout
      .split('\n')
      .filter((line) => line.includes(`pid=${overlay.agents[0]!.child.pid},`))
      .map((line) => line.split(/\s+/))
      .map(([protocol, , , , local]) => `${protocol} ${local!.replace(/^.*:/, '')}`);
    assert.deepEqual(listeners.toSorted(), [`tcp ${HEALTHZ_PORT}`, 'udp 8285']);
  });
});
