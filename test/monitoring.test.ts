import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { load, loadAll } from 'js-yaml';
import type { Part } from '../src/agent/readiness.ts';
import { GAUGES } from '../src/dataplane/counters.ts';
import { DROP_REASONS } from '../src/dataplane/drop-reason.ts';
import { run } from '../src/linux/run.ts';
import { METRICS } from '../src/metrics/definitions.ts';
import { EventLoopLag } from '../src/metrics/event-loop-lag.ts';
import { alertRules, dashboard, dashboardTargets } from './monitoring.ts';

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');

/** What Prometheus itself adds to each series. */
const TARGET_LABELS = ['job', 'instance'];

/** Labels of each metric there is, Prometheus' own `up` among them. */
const LABELS = new Map<string, readonly string[]>([
  ...[...METRICS, EventLoopLag.definition].map(({ name, labels }) => [name, labels] as const),
  ['up', []],
]);

/** Values that a selector may ask for, where the program has a list of them. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  'weft_dropped_packets_total.reason': DROP_REASONS,
  'weft_forwarder_operations_total.operation': GAUGES,
  'weft_packets_total.direction': ['tx', 'rx'],
  'weft_wireguard_bytes_total.direction': ['tx', 'rx'],
  'weft_failure.part': ['lease'] satisfies Part[],
  'weft_hooks_total.result': ['succeeded', 'failed'],
  'weft_probe_rtt_seconds.quantile': ['0.5', '0.99'],
  'weft_event_loop_lag_seconds.quantile': ['0.5', '0.99', '1'],
};

/** Words of PromQL that the expressions use; any other word must be a metric. */
const WORDS = new Set(
  'and or unless offset by without on sum avg min max count rate increase changes present_over_time clamp_min topk vector time'.split(
    ' ',
  ),
);

interface Use {
  readonly metrics: readonly string[];
  /** Metrics, labels and values that do not exist. */
  readonly wrong: readonly string[];
}

function useOf(expr: string): Use {
  const wrong: string[] = [];
  for (const [, metric = '', matchers = ''] of expr.matchAll(/(\w*)\s*\{([^}]*)\}/g)) {
    for (const [, label = '', value = ''] of matchers.matchAll(/(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"/g)) {
      if (TARGET_LABELS.includes(label)) continue;
      if (LABELS.get(metric)?.includes(label) !== true) wrong.push(`${metric}.${label}`);
      const known = VALUES[`${metric}.${label}`] ?? [];
      wrong.push(...value.split('|').flatMap((each) => (known.includes(each) ? [] : [`${metric}.${label}=${each}`])));
    }
  }
  const bare = expr.replaceAll(/\{[^}]*\}|\[[^\]]*\]|\b\d+[smhd]\b/g, '');
  const grouping = /\b(?:by|without|on)\s*\(([^)]*)\)/g;
  const words = bare.replaceAll(grouping, ' ').match(/[a-z_]\w*/gi) ?? [];
  const metrics = words.filter((word) => !WORDS.has(word));
  wrong.push(...metrics.filter((metric) => !LABELS.has(metric)));
  const labels = metrics.flatMap((metric) => LABELS.get(metric) ?? []).concat(TARGET_LABELS);
  for (const [, list = ''] of bare.matchAll(grouping)) {
    wrong.push(...list.split(',').flatMap((label) => (labels.includes(label.trim()) ? [] : [`by ${label}`])));
  }
  return { metrics, wrong };
}

/** Labels that a text names in double braces and that no metric of the expression has. */
function wrongLabels(text: string, expr: string): string[] {
  const labels = useOf(expr)
    .metrics.flatMap((metric) => LABELS.get(metric) ?? [])
    .concat(TARGET_LABELS);
  const named = Array.from(text.matchAll(/\{\{\s*(.*?)\s*\}\}/g), ([, name]) => name!.replace(/^\$labels\./, ''));
  return named.filter((name) => !labels.includes(name));
}

it('an expression with a metric, label or value that does not exist is found', () => {
  assert.deepEqual(useOf('rate(weft_packets_total{direction="tx"}[5m]) > 1').wrong, []);
  assert.deepEqual(useOf('weft_redy == 0').wrong, ['weft_redy']);
  assert.deepEqual(useOf('weft_ready{part="lease"}').wrong, ['weft_ready.part', 'weft_ready.part=lease']);
  assert.deepEqual(useOf('rate(weft_dropped_packets_total{reason=~"spoofed-source|spoofed"}[5m])').wrong, [
    'weft_dropped_packets_total.reason=spoofed',
  ]);
  assert.deepEqual(useOf('sum by (instance, reason) (weft_packets_total)').wrong, ['by  reason']);
  assert.deepEqual(wrongLabels('{{ $labels.instance }} {{peer}} {{part}}', 'weft_packets_total'), ['part']);
});

describe('deploy/monitoring/weft-alerts.yml', () => {
  const rules = alertRules();

  it('uses metrics, labels and values that there are', () => {
    for (const { alert, expr } of rules) {
      const { metrics, wrong } = useOf(expr);
      assert.deepEqual(wrong, [], alert);
      assert.ok(metrics.length > 0, alert);
    }
  });

  it('says for each alert what is the matter, how bad it is and what to do', () => {
    assert.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length);
    for (const { alert, expr, labels, annotations } of rules) {
      assert.match(alert, /^Weft[A-Z]\w+$/);
      assert.match(labels.severity!, /^(critical|warning|info)$/, alert);
      assert.deepEqual(Object.keys(annotations).sort(), ['action', 'description', 'runbook', 'summary'], alert);
      for (const text of Object.values(annotations)) assert.deepEqual(wrongLabels(text, expr), [], `${alert}: ${text}`);
      assert.match(annotations.summary!, /\{\{ \$labels\.instance \}\}/, alert);
    }
  });

  it('holds the alerts of docs/METRICS.md, in its order', () => {
    const rows = [...read('docs/METRICS.md').matchAll(/^\| `(Weft\w+)` \| (\w+) \| (\w+|at once) \| .+ \|$/gm)];
    assert.deepEqual(
      rows.map(([, alert, severity, after]) => ({ alert, severity, after })),
      rules.map(({ alert, labels, for: after = 'at once' }) => ({ alert, severity: labels.severity, after })),
    );
  });

  it('becomes a PrometheusRule by the command of docs/METRICS.md', async () => {
    const command = /^```sh\n([^`]*kind: PrometheusRule[^`]*)```/m.exec(read('docs/METRICS.md'))?.[1];
    assert.ok(command !== undefined);
    const { stdout } = await run(['sh', '-euc', `kubectl() { cat; }\n${command}`], {
      cwd: new URL('..', import.meta.url).pathname,
    });
    const { apiVersion, kind, spec } = load(stdout) as Record<string, unknown>;
    assert.deepEqual([apiVersion, kind], ['monitoring.coreos.com/v1', 'PrometheusRule']);
    assert.deepEqual(spec, load(read('deploy/monitoring/weft-alerts.yml')));
  });
});

it('the PodMonitor of docs/METRICS.md finds the agents of the manifest', () => {
  const text = /^```yaml\n([^`]*kind: PodMonitor[^`]*)```/m.exec(read('docs/METRICS.md'))?.[1];
  const monitor = load(text!) as {
    readonly metadata: { readonly namespace: string };
    readonly spec: {
      readonly selector: { readonly matchLabels: Readonly<Record<string, string>> };
      readonly podMetricsEndpoints: readonly { readonly port: string }[];
    };
  };
  const agents = (loadAll(read('deploy/kube-flannel.yml')) as { kind: string }[]).find(
    ({ kind }) => kind === 'DaemonSet',
  ) as unknown as {
    readonly metadata: { readonly namespace: string };
    readonly spec: {
      readonly template: {
        readonly metadata: { readonly labels: Readonly<Record<string, string>> };
        readonly spec: { readonly containers: readonly { readonly ports: readonly { readonly name: string }[] }[] };
      };
    };
  };
  assert.equal(monitor.metadata.namespace, agents.metadata.namespace);
  const { metadata, spec } = agents.spec.template;
  assert.deepEqual({ ...metadata.labels, ...monitor.spec.selector.matchLabels }, metadata.labels);
  assert.deepEqual(
    monitor.spec.podMetricsEndpoints.map(({ port }) => port),
    spec.containers.flatMap(({ ports }) => ports.map(({ name }) => name)),
  );
});

describe('deploy/monitoring/weft-dashboard.json', () => {
  const { panels, templating } = dashboard();
  const targets = dashboardTargets();

  it('uses metrics, labels and values that there are, in texts too', () => {
    assert.ok(targets.length > 20);
    for (const { expr, legendFormat, title } of targets) {
      assert.deepEqual(useOf(expr).wrong, [], title);
      assert.deepEqual(wrongLabels(legendFormat, expr), [], title);
    }
  });

  it('shows the jobs and nodes that are chosen, from the data source that is chosen, and nothing else', () => {
    assert.deepEqual(
      templating.list.map(({ name, type }) => [name, type]),
      [
        ['datasource', 'datasource'],
        ['job', 'query'],
        ['node', 'query'],
      ],
    );
    for (const { expr, datasource, title } of targets) {
      assert.deepEqual(datasource, { type: 'prometheus', uid: '$' + '{datasource}' }, title);
      for (const metric of useOf(expr).metrics) {
        assert.ok(expr.includes(`${metric}{job=~"$job", instance=~"$node"`), `${title}: ${metric}`);
      }
    }
  });

  it('has rows from the overview to the resources, and panels that come with Grafana', () => {
    assert.deepEqual(
      panels.filter(({ type }) => type === 'row').map(({ title }) => title),
      ['Overview', 'Paths', 'Data path', 'Kernel state', 'Resources'],
    );
    for (const { type, title, description } of panels) {
      assert.match(type, /^(row|stat|timeseries|table)$/, title);
      if (type !== 'row') assert.ok(description !== undefined && description.length > 10, title);
    }
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  });

  it('lays its panels out without holes and overlaps', () => {
    const cells = new Set<string>();
    for (const { gridPos, title } of panels) {
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.ok(x < 24 && !cells.has(`${x},${y}`), title);
          cells.add(`${x},${y}`);
        }
      }
    }
    const height = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
    assert.equal(cells.size, 24 * height);
  });
});

/** Metrics that neither a panel nor an alert needs, because another one tells the same. */
const TOLD_BY_OTHERS = [
  // weft_failure
  'weft_forwarder_running',
  'weft_traffic_last_success_timestamp_seconds',
  // weft_store_reachable
  'weft_store_last_success_timestamp_seconds',
  // weft_lease_events_total
  'weft_peer_table_writes_total',
  'weft_peer_table_write_timestamp_seconds',
  // weft_probe_loss_ratio
  'weft_probes_total',
];

it('every metric is in a panel or an alert', () => {
  const expressions = [...alertRules(), ...dashboardTargets()].map(({ expr }) => expr);
  const used = new Set(expressions.flatMap((expr) => useOf(expr).metrics));
  assert.deepEqual([...LABELS.keys()].filter((metric) => !used.has(metric)).sort(), TOLD_BY_OTHERS.toSorted());
});
