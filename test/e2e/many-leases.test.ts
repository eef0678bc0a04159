import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIpv4, ipv4Of } from '../../src/ip/ipv4.ts';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import { eventually } from '../netns/waiting.ts';
import { goldenTopology, launchGolden, SERVER_ADDRESS, serveToHosts, untilReady } from './golden-hosts.ts';

const PORT = 12379;
const ENTRIES = 100_000;
const BURST = 5_000;
const MAX_PEERS = 65_535;
/** etcd takes up to 128 operations in a transaction. */
const TRANSACTION = 100;
/** What it takes on two busy cores, many times over; one update at a time would take an hour. */
const PATIENCE_MS = 240_000;

/** The etcd API as JSON: a process for each of a thousand transactions would take longer than what is tested. */
async function put(endpoint: string, from: number, to: number, round: number): Promise<void> {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  for (let first = from; first < to; first += TRANSACTION) {
    const success = Array.from({ length: Math.min(TRANSACTION, to - first) }, (_, i) => {
      const n = first + i;
      const subnet = formatIpv4(ipv4Of(0x0a400000 + n * 64));
      const publicIp = formatIpv4(ipv4Of(0xac100000 + round * 0x20000 + n));
      return {
        requestPut: {
          key: base64(`/coreos.com/network/subnets/${subnet}-26`),
          value: base64(JSON.stringify({ PublicIP: publicIp, PublicIPv6: null })),
        },
      };
    });
    const response = await fetch(`${endpoint}/v3/kv/txn`, { method: 'POST', body: JSON.stringify({ success }) });
    assert.equal(response.status, 200, await response.text());
  }
}

test('100,000 leases and a burst of changes: taken in within seconds, and /readyz answers all the while', async (t) => {
  await using server = await EtcdServer.start();
  await using topology = await goldenTopology(1);
  const endpoint = server.endpoints[0]!;
  await using _relay = await serveToHosts(topology, PORT, new URL(endpoint).host);
  await server.etcdctl(
    'put',
    '/coreos.com/network/config',
    '{"Network": "10.0.0.0/8", "SubnetLen": 26, "SubnetMax": "10.32.0.0"}',
  );
  const flags = [`--etcd-endpoints=http://${SERVER_ADDRESS}:${PORT}`];
  await using agent = await launchGolden(topology, topology.hosts[0]!, flags);
  await untilReady(agent);
  const metric = async (series: string): Promise<number | undefined> => {
    const { body } = await agent.get('/metrics');
    const line = body.split('\n').find((text) => text.startsWith(`${series} `));
    return line === undefined ? undefined : Number(line.slice(series.length + 1));
  };
  const asked: { readonly atMs: number; readonly isAnswered: boolean }[] = [];
  /** Of the questions that began since then: one that was under way before says nothing. */
  const expectAnswers = (during: string, fromMs: number): void => {
    const { answered = [], silent = [] } = Object.groupBy(
      asked.filter(({ atMs }) => atMs >= fromMs),
      ({ isAnswered }) => (isAnswered ? 'answered' : 'silent'),
    );
    const text = `${answered.length} answers and ${silent.length} without during ${during}`;
    t.diagnostic(text);
    // On a busy machine the asking program may give up before the answer comes, now and then.
    assert.ok(answered.length > 0 && answered.length >= silent.length, text);
  };
  const stop = new AbortController();
  const refusals: string[] = [];
  const probing = (async () => {
    while (!stop.signal.aborted) {
      const atMs = performance.now();
      const { status, body } = await agent.get('/readyz');
      asked.push({ atMs, isAnswered: !Number.isNaN(status) });
      if (status !== 200 && !Number.isNaN(status)) refusals.push(`${status} ${body}`);
    }
  })();
  try {
    // As they come, one after the other, to an agent that is running.
    const intakeFromMs = performance.now();
    await put(endpoint, 0, ENTRIES, 0);
    await eventually(
      'as many peers as there is room for',
      async () => (await metric('weft_peers')) === MAX_PEERS || undefined,
      PATIENCE_MS,
    );
    await eventually(
      'the others to be refused',
      async () => (await metric('weft_refused_leases{reason="too-many"}')) === ENTRIES - MAX_PEERS || undefined,
      PATIENCE_MS,
    );
    expectAnswers('the intake', intakeFromMs);
    const before = (await metric('weft_peer_table_writes_total'))!;
    assert.ok(before < 5_000, `${before} peer tables were written`);
    const burstFromMs = performance.now();
    await put(endpoint, 0, BURST, 1);
    const sets = 'weft_lease_events_total{event="set"}';
    await eventually('the burst', async () => ((await metric(sets)) ?? 0) >= ENTRIES + BURST || undefined, PATIENCE_MS);
    await agent.logged(/^Subnet added: 10\.64\.0\.0\/26 via 172\.18\.0\.0$/, 0, PATIENCE_MS);
    expectAnswers('the burst', burstFromMs);
    assert.ok((await metric('weft_peer_table_writes_total'))! - before < BURST / 5);
  } finally {
    stop.abort();
    await probing;
  }
  assert.deepEqual(refusals, []);
});
