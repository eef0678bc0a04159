import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { BUILD, ALL_PARTS as FULL } from '../../test/fakes/metrics-snapshot.ts';
import { METRICS } from './definitions.ts';
import { EventLoopLag } from './event-loop-lag.ts';
import { createMetrics } from './metrics.ts';
import type { MetricsSnapshot } from './snapshot.ts';

/** The series of a scrape: `name{labels}` to value. */
async function scrape(snapshot: MetricsSnapshot): Promise<Map<string, number>> {
  using metrics = createMetrics(() => snapshot);
  return parse(await metrics.render());
}

function parse(text: string): Map<string, number> {
  const series = new Map<string, number>();
  for (const line of text.split('\n').filter((each) => each !== '' && !each.startsWith('#'))) {
    const [, name = '', value] = /^(\S+(?:\{.*\})?) (\S+)$/.exec(line) ?? [];
    assert.ok(!series.has(name), `twice: ${name}`);
    series.set(name, Number(value));
  }
  return series;
}

describe('metrics', () => {
  it('show every part of the snapshot', async () => {
    const series = await scrape(FULL);
    const expected: Record<string, number> = {
      weft_ready: 1,
      weft_peers: 2,
      weft_skipped_peers: 5,
      'weft_refused_leases{reason="overlaps-own"}': 1,
      'weft_lease_events_total{event="set"}': 3,
      weft_lease_expiry_timestamp_seconds: 1_700_000_000.5,
      weft_store_reachable: 0,
      weft_store_errors_total: 4,
      weft_store_unreadable_entries_total: 1,
      weft_store_last_success_timestamp_seconds: 1_600_000_000,
      weft_forwarder_running: 1,
      weft_fast_path: 1,
      'weft_fast_path_obstacle{reason="ipsec-policy"}': 1,
      weft_fast_path_peers_without_agent: 2,
      weft_forwarder_restarts_total: 1,
      weft_peer_table_writes_total: 4,
      weft_peer_table_write_timestamp_seconds: 1_700_000_000.5,
      'weft_packets_total{peer="10.244.1.0/24",direction="tx"}': 5,
      'weft_bytes_total{peer="10.244.1.0/24",direction="rx"}': 600,
      'weft_dropped_packets_total{peer="10.244.1.0/24",direction="tx",reason="too-big"}': 2,
      'weft_dropped_packets_total{peer="none",direction="tx",reason="no-route"}': 7,
      'weft_forwarder_operations_total{operation="txSends"}': 11,
      weft_kernel_runs_total: 9,
      'weft_kernel_operations_total{operation="route-add"}': 3,
      'weft_kernel_repairs_total{operation="route-add"}': 1,
      weft_kernel_failures_total: 0,
      weft_kernel_problems: 0,
      weft_kernel_converged: 1,
      'weft_wireguard_last_handshake_timestamp_seconds{peer="10.244.1.0/24",device="flannel-wg"}': 1_700_000_009,
      'weft_wireguard_bytes_total{peer="10.244.1.0/24",device="flannel-wg",direction="tx"}': 148,
      'weft_wireguard_bytes_total{peer="10.244.1.0/24",device="flannel-wg",direction="rx"}': 92,
      'weft_ipsec_tunnel_up{peer="10.244.1.0/24"}': 1,
      'weft_ipsec_tunnel_up{peer="10.244.2.0/24"}': 0,
      'weft_ipsec_bytes_total{peer="10.244.1.0/24",direction="tx"}': 84,
      'weft_ipsec_bytes_total{peer="10.244.1.0/24",direction="rx"}': 168,
      'weft_failure{part="kernel"}': 1,
      'weft_failure{part="rules"}': 0,
      weft_traffic_checks_total: 20,
      'weft_traffic_repairs_total{problem="order"}': 2,
      weft_traffic_failures_total: 0,
      weft_traffic_last_success_timestamp_seconds: 1_600_000_001,
      'weft_hooks_total{hook="subnet-add",result="succeeded"}': 4,
      weft_probes_total: 17,
      'weft_probe_rtt_seconds{peer="10.244.1.0/24",quantile="0.5"}': 0.002,
      'weft_probe_rtt_seconds{peer="10.244.1.0/24",quantile="0.99"}': 0.005,
      'weft_probe_loss_ratio{peer="10.244.1.0/24"}': 0.25,
      'weft_probe_path_mtu_bytes{peer="10.244.1.0/24"}': 1_400,
      'weft_probe_fault{peer="10.244.1.0/24",fault="lossy"}': 1,
      'weft_hooks_total{hook="subnet-add",result="failed"}': 1,
    };
    for (const [name, value] of Object.entries(expected)) assert.equal(series.get(name), value, name);
    const build = [...series.keys()].find((name) => name.startsWith('weft_build_info'));
    assert.match(build ?? '', /version="1\.2\.3".*backend="udp".*subnet_manager="etcd"/);
    for (const name of ['process_resident_memory_bytes', 'process_start_time_seconds', 'process_cpu_seconds_total']) {
      assert.ok((series.get(name) ?? 0) > 0, name);
    }
    assert.ok(series.has('weft_event_loop_lag_seconds{quantile="0.99"}'));
    const quiet = [...series.keys()].filter((name) => name.includes('10.244.2.0'));
    assert.deepEqual(
      quiet,
      ['weft_ipsec_tunnel_up{peer="10.244.2.0/24"}'],
      'a quiet peer has no series of its packets',
    );
  });

  it('have no series for parts that are not there', async () => {
    const names = [
      ...(await scrape({ build: BUILD, ready: false, configOutdated: false, failures: {}, droppedLogLines: 0 })).keys(),
    ];
    assert.deepEqual(
      names.filter((name) => name.startsWith('weft_')).map((name) => name.replace(/\{.*/, '')),
      [
        'weft_build_info',
        'weft_network_config_outdated',
        'weft_ready',
        'weft_log_dropped_lines_total',
        ...Array(3).fill('weft_event_loop_lag_seconds'),
      ],
    );
  });

  it('are of the moment: counters do not add up over scrapes, and a peer that has gone is gone', async () => {
    let snapshot = FULL;
    using metrics = createMetrics(() => snapshot);
    await metrics.render();
    assert.equal(parse(await metrics.render()).get('weft_store_errors_total'), 4);
    snapshot = { ...FULL, forwarder: { ...FULL.forwarder!, peers: [] }, wireguard: [], ipsec: [], probes: undefined };
    const after = parse(await metrics.render());
    assert.ok(![...after.keys()].some((name) => name.includes('10.244.1.0')));
    assert.ok(after.has('weft_dropped_packets_total{peer="none",direction="tx",reason="no-route"}'));
  });

  it('are all in docs/METRICS.md, in this order, and no others', () => {
    const text = readFileSync(new URL('../../docs/METRICS.md', import.meta.url), 'utf8');
    const rows = [...text.matchAll(/^\| `([a-z_]+)` \| (\w+) \| (.*?) ?\| (.*) \|$/gm)].map(
      ([, name, type, labels = '', help]) => ({ name, type, help, labels: labels.match(/[a-z_]+/g) ?? [] }),
    );
    assert.deepEqual(
      rows,
      [...METRICS, EventLoopLag.definition].map(({ name, type, help, labels }) => ({
        name,
        type,
        help,
        labels: [...labels],
      })),
    );
  });

  it('keep the conventions for names', () => {
    for (const { name, type } of METRICS) {
      assert.match(name, /^(weft|process)_[a-z_]+$/);
      assert.equal(name.endsWith('_total'), type === 'counter', name);
    }
  });
});
