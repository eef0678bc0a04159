import { readFileSync } from 'node:fs';
import { load } from 'js-yaml';

/** What deploy/monitoring/ has, for its tests: without Prometheus (test/), and with it (test/e2e/). */

export interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  /** Such as `5m`; absent: at once. */
  readonly for?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

interface Target {
  readonly expr: string;
  readonly legendFormat: string;
  readonly datasource: unknown;
}

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly Target[];
}

interface Dashboard {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly { readonly name: string; readonly type: string }[] };
}

const FOLDER = new URL('../deploy/monitoring/', import.meta.url);

export const ALERTS_PATH = new URL('weft-alerts.yml', FOLDER).pathname;

/** The alert rules, in the order of the file. */
export function alertRules(): AlertRule[] {
  const { groups } = load(readFileSync(ALERTS_PATH, 'utf8')) as { groups: { rules: AlertRule[] }[] };
  return groups.flatMap(({ rules }) => rules);
}

export function dashboard(): Dashboard {
  return JSON.parse(readFileSync(new URL('weft-dashboard.json', FOLDER), 'utf8')) as Dashboard;
}

/** What the panels ask Prometheus for, with the title of the panel. */
export function dashboardTargets(): (Target & { readonly title: string })[] {
  return dashboard().panels.flatMap(({ title, targets = [] }) => targets.map((target) => ({ ...target, title })));
}
