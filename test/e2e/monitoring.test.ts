import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { freePorts } from '../../src/lab/servers/free-ports.ts';
import { run, start } from '../../src/linux/run.ts';
import { createMetrics } from '../../src/metrics/metrics.ts';
import type { MetricsSnapshot } from '../../src/metrics/snapshot.ts';
import { ALL_PARTS } from '../fakes/metrics-snapshot.ts';
import { ALERTS_PATH, type AlertRule, alertRules, dashboardTargets } from '../monitoring.ts';
import { eventually } from '../netns/waiting.ts';

/** Rules and dashboard in the hands of Prometheus' own programs. */

const folder = mkdtempSync(join(tmpdir(), 'weft-monitoring-'));
after(() => rmSync(folder, { recursive: true }));
const rules = alertRules();

type Labels = Readonly<Record<string, string>>;
/** A series in promtool's notation, one value a minute from 0 on: its text (`{}` is where the target's labels go) and its values. */
type Series = Readonly<Record<string, string>>;

const HOURS = 4;
const LAST_MINUTE = HOURS * 60;

/**
 * A node that is well, with every backend's figures at once. It goes through what happens to healthy nodes: at minute 60 a
 * restart, with counters from zero, that takes three minutes to be ready; at 120 an outage of the store for five minutes; at 150 an
 * incident that is repaired, with a stray packet and some drops; at 180 a change of configuration with a restart ten minutes later.
 */
const HEALTHY: Series = {
  'up{}': '1x60 0x1 1x240',
  'weft_build_info{version="1", node_version="26", backend="udp", subnet_manager="etcd"}': '1x60 _x1 1x240',
  'weft_network_config_outdated{}': '0x179 1x10 0x240',
  'weft_ready{}': '1x60 0x2 1x240',
  'weft_failure{part="kernel"}': '0x60 1x2 0x240',
  'weft_failure{part="lease"}': '0x240',
  'weft_log_dropped_lines_total{}': '0x240',
  'weft_refused_leases{reason="overlaps-own"}': '0x149 1x5 0x240',
  // A roll-out of another backend: peers that have changed and are not reached until this node follows.
  'weft_skipped_peers{}': '0x59 1x5 0x240',
  'weft_lease_expiry_timestamp_seconds{}': '3700x1 86400x240',
  'weft_store_reachable{}': '1x119 0x4 1x240',
  'weft_store_unreadable_entries_total{}': '0x240',
  'weft_fast_path_obstacle{reason="unavailable"}': '_x61 1x5 _x240',
  'weft_fast_path_peers_without_agent{}': '0x59 1x5 0x240',
  'weft_forwarder_restarts_total{}': '0x149 1x240',
  'weft_packets_total{peer="10.244.1.0/24", direction="rx"}': '0+60000x60 0+60000x240',
  'weft_dropped_packets_total{peer="none", direction="tx", reason="ipv6-multicast"}': '0+600x60 0+600x240',
  'weft_dropped_packets_total{peer="10.244.1.0/24", direction="tx", reason="too-big"}': '0+5x149 5000x240',
  'weft_dropped_packets_total{peer="none", direction="rx", reason="unknown-source"}': '0x149 1x240',
  'weft_queue_dropped_packets_total{queue="socket"}': '0x149 50000x240',
  'weft_kernel_repairs_total{operation="route-add"}': '0x149 200x240',
  'weft_kernel_problems{}': '0x149 3x5 0x240',
  'weft_kernel_converged{}': '1x60 0x2 1x240',
  'weft_traffic_repairs_total{problem="missing"}': '0x149 8x240',
  // Who has sent lately has a handshake of the last two minutes; then nothing is exchanged, from minute 200 on.
  'weft_wireguard_bytes_total{peer="10.244.1.0/24", device="flannel-wg", direction="tx"}': '0+6000x199 1200000x240',
  'weft_wireguard_last_handshake_timestamp_seconds{peer="10.244.1.0/24", device="flannel-wg"}': '0+60x199 12000x240',
  // Hosts next to it restart as well, and one path loses packets for a moment.
  'weft_probe_fault{peer="10.244.1.0/24", fault="tunnel-blocked"}': '_x59 1x3 stale',
  'weft_probe_fault{peer="10.244.2.0/24", fault="lossy"}': '_x149 1x2 stale',
  'weft_ipsec_tunnel_up{peer="10.244.1.0/24"}': '1x60 0x2 1x240',
  'weft_hooks_total{hook="subnet-add", result="succeeded"}': '0+1x240',
  'weft_hooks_total{hook="subnet-add", result="failed"}': '0x240',
  'process_resident_memory_bytes{}': '120e6x59 500e6x5 110e6x240',
  'process_start_time_seconds{}': '1x60 3660x129 11400x240',
  'weft_event_loop_lag_seconds{quantile="0.99"}': '0.01x59 2x3 0.01x240',
  'weft_event_loop_lag_seconds{quantile="1"}': '3x240',
};

interface Fault {
  readonly alert: string;
  /** In place of the healthy ones. Something is wrong from minute 61 on. */
  readonly series: Series;
  /** The minute from which on the expression holds, where it is not 61. */
  readonly from?: number;
  /** Besides target and severity. */
  readonly labels?: Labels;
}

/** A healthy node without the incidents of {@link HEALTHY}, so that what fires is the fault's. */
const CALM: Series = {
  'up{}': '1x240',
  'weft_build_info{version="1", node_version="26", backend="udp", subnet_manager="etcd"}': '1x240',
  'process_start_time_seconds{}': '1x240',
  'weft_lease_expiry_timestamp_seconds{}': '86400x240',
  'weft_wireguard_last_handshake_timestamp_seconds{peer="10.244.1.0/24", device="flannel-wg"}': '0+60x240',
};

const DROPS = (reason: string, direction: string): string =>
  `weft_dropped_packets_total{peer="none", direction="${direction}", reason="${reason}"}`;
const PEER = { peer: '10.244.1.0/24', device: 'flannel-wg' };
const SENT = 'weft_wireguard_bytes_total{peer="10.244.1.0/24", device="flannel-wg", direction="tx"}';
const HANDSHAKE = 'weft_wireguard_last_handshake_timestamp_seconds{peer="10.244.1.0/24", device="flannel-wg"}';

const FAULTS: readonly Fault[] = [
  { alert: 'WeftAgentUnreachable', series: { 'up{}': '1x60 0x240' } },
  { alert: 'WeftNodeNotReady', series: { 'weft_ready{}': '1x60 0x240' } },
  {
    alert: 'WeftPartFailing',
    series: { 'weft_failure{part="rules"}': '0x60 1x240' },
    labels: { part: 'rules' },
  },
  // Also while it is down, and shows nothing.
  {
    alert: 'WeftAgentRestarts',
    series: {
      'process_start_time_seconds{}': '1x48 2x5 3x5 4x0 _x240',
      'weft_build_info{version="1", node_version="26", backend="udp", subnet_manager="etcd"}': '1x61 _x240',
    },
  },
  { alert: 'WeftConfigOutdated', series: { 'weft_network_config_outdated{}': '0x60 1x240' } },
  { alert: 'WeftLeaseLost', series: { 'weft_failure{part="lease"}': '0x60 1x240' } },
  // Ends at minute 61; before that it was about to.
  { alert: 'WeftLeaseLost', series: { 'weft_lease_expiry_timestamp_seconds{}': '3660x240' } },
  { alert: 'WeftLeaseRunsOut', series: { 'weft_lease_expiry_timestamp_seconds{}': '5459x240' } },
  { alert: 'WeftStoreUnreachable', series: { 'weft_store_reachable{}': '1x60 0x240' } },
  {
    alert: 'WeftRefusedLeases',
    series: { 'weft_refused_leases{reason="overlaps-own"}': '0x60 1x240' },
    labels: { reason: 'overlaps-own' },
  },
  { alert: 'WeftPeersSkipped', series: { 'weft_skipped_peers{}': '0x60 1x240' } },
  { alert: 'WeftUnreadableLeases', series: { 'weft_store_unreadable_entries_total{}': '0x60 1x240' } },
  {
    alert: 'WeftPathFault',
    series: { 'weft_probe_fault{peer="10.244.1.0/24", fault="one-way"}': '_x61 1x240' },
    labels: { peer: '10.244.1.0/24', fault: 'one-way' },
  },
  ...['spoofed-source', 'unknown-source', 'foreign-source'].map((reason) => ({
    alert: 'WeftSpoofedPackets',
    series: { [DROPS(reason, 'rx')]: '0x60 1+1x240' },
    labels: { peer: 'none', reason },
  })),
  ...['too-big', 'no-route', 'foreign-destination'].map((reason) => ({
    alert: 'WeftPacketsDropped',
    series: { [DROPS(reason, 'tx')]: '0x60 600+600x240' },
    labels: { reason },
  })),
  {
    alert: 'WeftQueueDrops',
    series: { 'weft_queue_dropped_packets_total{queue="socket"}': '0x60 6000+6000x240' },
    labels: { queue: 'socket' },
  },
  { alert: 'WeftForwarderRestarts', series: { 'weft_forwarder_restarts_total{}': '0x58 1 2 3x240' } },
  {
    alert: 'WeftFastPathClosed',
    series: { 'weft_fast_path_obstacle{reason="ipsec-policy"}': '_x61 1x240' },
    labels: { reason: 'ipsec-policy' },
  },
  { alert: 'WeftPeerWithoutAgent', series: { 'weft_fast_path_peers_without_agent{}': '0x60 1x240' } },
  // The last handshake is of minute 60, and ten minutes later that is too long ago.
  {
    alert: 'WeftWireguardHandshakeOld',
    series: { [SENT]: '0+600x240', [HANDSHAKE]: '0+60x59 3600x240' },
    from: 70,
    labels: PEER,
  },
  // There never was one.
  { alert: 'WeftWireguardHandshakeOld', series: { [SENT]: '0x60 148+148x240', [HANDSHAKE]: '_x240' }, labels: PEER },
  {
    alert: 'WeftIpsecTunnelDown',
    series: { 'weft_ipsec_tunnel_up{peer="10.244.1.0/24"}': '1x60 0x240' },
    labels: { peer: '10.244.1.0/24' },
  },
  {
    alert: 'WeftKernelFought',
    // Sometimes it is a route, sometimes the link: the fight is one.
    series: {
      'weft_kernel_repairs_total{operation="route-add"}': '0x60 1x5 2x5 3x5 4x5 5x240',
      'weft_kernel_repairs_total{operation="link-set"}': '0x63 1x5 2x5 3x5 4x240',
    },
  },
  { alert: 'WeftRulesFought', series: { 'weft_traffic_repairs_total{problem="missing"}': '0x60 1+1x240' } },
  { alert: 'WeftKernelNotConverged', series: { 'weft_kernel_problems{}': '0x60 1x240' } },
  { alert: 'WeftKernelNotConverged', series: { 'weft_kernel_converged{}': '1x60 0x240' } },
  {
    alert: 'WeftHookFailed',
    series: { 'weft_hooks_total{hook="subnet-add", result="failed"}': '0x60 1x240' },
    labels: { hook: 'subnet-add' },
  },
  // The first time that it was run.
  {
    alert: 'WeftHookFailed',
    series: { 'weft_hooks_total{hook="post-startup", result="failed"}': '_x61 1x240' },
    labels: { hook: 'post-startup' },
  },
  { alert: 'WeftMemory', series: { 'process_resident_memory_bytes{}': '120e6x60 500e6x240' } },
  {
    alert: 'WeftControlPlaneSlow',
    series: { 'weft_event_loop_lag_seconds{quantile="0.99"}': '0x60 0.8x240' },
    labels: { quantile: '0.99' },
  },
  { alert: 'WeftLogLinesLost', series: { 'weft_log_dropped_lines_total{}': '0x60 1x240' } },
];

/** The series of a target, as promtool reads them. */
function onTarget(target: Labels, series: Series): { series: string; values: string }[] {
  const own = Object.entries(target).map(([name, value]) => `${name}="${value}"`);
  return Object.entries(series).map(([text, values]) => ({
    series: text.replace(/\{(.*)\}$/, (_, labels: string) => `{${[labels, ...own].filter(Boolean).join(', ')}}`),
    values,
  }));
}

interface RuleTest {
  readonly name: string;
  readonly interval: string;
  readonly input_series: readonly { readonly series: string; readonly values: string }[];
  readonly alert_rule_test: readonly unknown[];
}

/** Runs tests against the rules. @throws WeftError WEFT_COMMAND_FAILED with what was got and what was wanted. */
async function testRules(name: string, tests: readonly RuleTest[]): Promise<void> {
  const path = join(folder, `${name}.yml`);
  // YAML takes JSON.
  writeFileSync(path, JSON.stringify({ rule_files: [ALERTS_PATH], evaluation_interval: '1m', tests }));
  await run(['promtool', 'test', 'rules', path]);
}

const AT_FAULT = { job: 'weft', instance: 'node-1' };
const BESIDE = { job: 'monitoring/weft', instance: 'node-2' };
/** Another program's target: its restarts and its memory are not weft's affair. */
const STRANGER = onTarget(
  { job: 'other', instance: 'node-1:9100' },
  {
    'up{}': '0x240',
    'process_start_time_seconds{}': '0+60x240',
    'process_resident_memory_bytes{}': '8e9x240',
  },
);

function minutes(text: string | undefined): number {
  const [, count, unit] = /^(\d+)([mh])$/.exec(text ?? '0m')!;
  return Number(count) * (unit === 'h' ? 60 : 1);
}

function silent(minute: number, but: string | undefined = undefined): unknown[] {
  return rules
    .filter(({ alert }) => alert !== but)
    .map(({ alert }) => ({ eval_time: `${minute}m`, alertname: alert, exp_alerts: [] }));
}

/** The annotations of an alert with these labels. */
function rendered(rule: AlertRule, labels: Labels): Labels {
  const fill = (text: string): string =>
    text.replaceAll(/\{\{ \$labels\.(\w+) \}\}/g, (_, name: string) => labels[name]!);
  return Object.fromEntries(Object.entries(rule.annotations).map(([name, text]) => [name, fill(text)]));
}

describe('the alert rules', () => {
  it('are rules to promtool', async () => {
    const { stdout } = await run(['promtool', 'check', 'rules', ALERTS_PATH]);
    assert.match(stdout, new RegExp(`SUCCESS: ${rules.length} rules found`));
  });

  it('are silent on a healthy node for four hours, with a restart, an outage and an incident in them', async () => {
    const moments = Array.from({ length: LAST_MINUTE + 1 }, (_, minute) => minute);
    await testRules('healthy', [
      {
        name: 'healthy',
        interval: '1m',
        input_series: [...onTarget(AT_FAULT, HEALTHY), ...onTarget(BESIDE, { ...HEALTHY, ...CALM }), ...STRANGER],
        alert_rule_test: moments.flatMap((minute) => silent(minute)),
      },
    ]);
  });

  it('have each a fault here that it is for', () => {
    assert.deepEqual(
      [...new Set(FAULTS.map(({ alert }) => alert))],
      rules.map(({ alert }) => alert),
    );
  });

  FAULTS.forEach(({ alert, series, from = 61, labels }, index) => {
    const shown = Object.values(labels ?? {}).join(', ');
    it(`${alert} fires for its fault alone, not too early, on that node (${index + 1}${shown && `: ${shown}`})`, async () => {
      const rule = rules.find((each) => each.alert === alert)!;
      const due = from + minutes(rule.for);
      const exp_labels = { ...AT_FAULT, ...rule.labels, ...labels };
      await testRules(`fault-${index}`, [
        {
          name: alert,
          interval: '1m',
          input_series: [
            ...onTarget(AT_FAULT, { ...quiet(), ...series }),
            ...onTarget(BESIDE, { ...quiet(), ...CALM }),
            ...STRANGER,
          ],
          alert_rule_test: [
            { eval_time: `${due - 1}m`, alertname: alert, exp_alerts: [] },
            {
              eval_time: `${due}m`,
              alertname: alert,
              exp_alerts: [{ exp_labels, exp_annotations: rendered(rule, exp_labels) }],
            },
            ...silent(due, alert),
          ],
        },
      ]);
    });
  });

  it('are tested by something that can fail', async () => {
    const wrong = { eval_time: '10m', alertname: 'WeftNodeNotReady', exp_alerts: [] };
    const input_series = onTarget(AT_FAULT, { 'weft_ready{}': '0x20' });
    const test = { name: 'wrong', interval: '1m', input_series, alert_rule_test: [wrong] };
    await assert.rejects(testRules('wrong', [test]), { code: 'WEFT_COMMAND_FAILED' });
  });
});

/** The healthy figures that no incident has changed by minute 60. */
function quiet(): Series {
  return {
    ...Object.fromEntries(
      Object.entries(HEALTHY).filter(
        ([name]) => !/obstacle|without_agent|skipped_peers|probe_fault|lag_seconds|resident/.test(name),
      ),
    ),
    ...Object.fromEntries(
      Object.entries(HEALTHY).flatMap(([name, values]) =>
        /^(?:1x60 0x2 |0x60 1x2 )/.test(values) ? [[name, `${values[0]}x240`]] : [],
      ),
    ),
    ...CALM,
  };
}

type Answer = readonly { readonly metric: Labels; readonly value: readonly [atSeconds: number, value: string] }[];

/** Every metric, and packets from a peer that grow with each step, of which user space sees a quarter. */
function withTraffic(step: number): MetricsSnapshot {
  const forwarder = ALL_PARTS.forwarder!;
  const [peer] = forwarder.peers;
  const rx = { packets: 400 * step, bytes: 40_000 * step, drops: { 'spoofed-source': step } };
  return {
    ...ALL_PARTS,
    forwarder: { ...forwarder, peers: [{ ...peer!, rx }], operations: { rxDatagrams: 100 * step } },
  };
}

describe('a Prometheus with the configuration of docs/METRICS.md', () => {
  const text = /^```yaml\n(rule_files:[^`]*)```/m.exec(
    readFileSync(new URL('../../docs/METRICS.md', import.meta.url), 'utf8'),
  )?.[1];
  assert.ok(text !== undefined);
  copyFileSync(ALERTS_PATH, join(folder, 'weft-alerts.yml'));

  /**
   * Debian builds Prometheus without the discovery of Kubernetes: one node is given by hand, with the labels that are found on it.
   * Everything else stays as it stands.
   */
  function configFor(port: number): string {
    const labels = { __meta_kubernetes_node_address_InternalIP: '127.0.0.1', __meta_kubernetes_node_name: 'node-1' };
    const found = JSON.stringify([{ targets: ['127.0.0.1:10250'], labels }]);
    const scrape = text!
      .replace('kubernetes_sd_configs: [{ role: node }]', `static_configs: ${found}`)
      .replace('$1:8081', `$1:${port}`);
    const path = join(folder, 'prometheus.yml');
    writeFileSync(path, `global: { scrape_interval: 1s, evaluation_interval: 1s }\n${scrape}`);
    return path;
  }

  it('takes it', async () => {
    const { stdout } = await run(['promtool', 'check', 'config', configFor(8081)]);
    assert.match(stdout, new RegExp(`SUCCESS: ${rules.length} rules found`));
  });

  it('finds the agent, evaluates every rule, and has an answer for every panel of the dashboard', async () => {
    let scrapes = 0;
    using metrics = createMetrics(() => withTraffic(++scrapes));
    const agent = createServer((_, response) => {
      void metrics.render().then((body) => response.end(body));
    });
    using _closed = {
      [Symbol.dispose]: () => {
        agent.close();
        agent.closeAllConnections();
      },
    };
    await new Promise<void>((resolve) => void agent.listen(0, '127.0.0.1', resolve));
    const config = configFor((agent.address() as AddressInfo).port);
    const [port] = await freePorts(1);
    await using server = await start(
      [
        'prometheus',
        `--config.file=${config}`,
        `--storage.tsdb.path=${join(folder, 'data')}`,
        `--web.listen-address=127.0.0.1:${port}`,
      ],
      { stdout: 'tail' },
    );
    /** `undefined` while it does not listen, or still loads. */
    const ask = async <T>(path: string): Promise<T | undefined> => {
      const response = await fetch(`http://127.0.0.1:${port}/api/v1/${path}`).catch(() => undefined);
      if (response === undefined || response.status === 503) return undefined;
      const { status, data, error } = (await response.json()) as { status: string; data: T; error?: string };
      assert.equal(status, 'success', `${decodeURIComponent(path)}: ${error}`);
      return data;
    };
    const query = (expr: string): Promise<Answer> =>
      eventually(`an answer to ${expr}`, async () => {
        const data = await ask<{ result: Answer }>(`query?query=${encodeURIComponent(expr)}`);
        return data?.result.length === 0 ? undefined : data?.result;
      });
    try {
      const up = await query('up == 1');
      assert.deepEqual(
        up.map(({ metric }) => metric),
        [{ __name__: 'up', job: 'weft', instance: 'node-1' }],
      );
      for (const { expr, title } of dashboardTargets()) {
        const answer = await query(expr.replaceAll(/\$(?:job|node)\b/g, '.*').replaceAll('$__rate_interval', '30s'));
        if (title.startsWith('Fast path, share')) assert.ok(Math.abs(Number(answer[0]!.value[1]) - 0.75) < 1e-6);
      }
      const states = await eventually('every rule is evaluated', async () => {
        const data = await ask<{ groups: { rules: { name: string; health: string; lastError?: string }[] }[] }>(
          'rules',
        );
        const all = data?.groups.flatMap((group) => group.rules);
        return all?.some(({ health }) => health === 'unknown') === false ? all : undefined;
      });
      assert.deepEqual(
        states.map(({ name, health, lastError }) => [name, health, lastError]).sort(),
        rules.map(({ alert }) => [alert, 'ok', undefined]).sort(),
      );
    } catch (error) {
      throw new Error(`Prometheus said:\n${server.tail()}`, { cause: error });
    }
  });
});
