/** What all screens share: where the reader is, what he has typed, and the last look at the hosts. */
import { computed, effect, signal } from '@preact/signals';
import type { Overview } from '../../src/ui/overview.ts';
import { parseFilter } from './model/filter.ts';
import { type LinkRate, linkRates } from './model/rates.ts';
import { formatRoute, parseRoute, type Route, type Screen } from './routes.ts';

export const route = signal<Route>(parseRoute(location.pathname, location.search));
export const filterText = signal('');
export const filter = computed(() => parseFilter(filterText.value));
export const isPaused = signal(false);

export const overview = signal<Overview | undefined>(undefined);
export const rates = signal<ReadonlyMap<string, LinkRate>>(new Map());
/** Why the last look failed; undefined when it did not. */
export const trouble = signal<string | undefined>(undefined);

export function takeOverview(next: Overview): void {
  rates.value = linkRates(overview.value, next, rates.value);
  overview.value = next;
}

export function go(screen: Screen, query: Readonly<Record<string, string | undefined>> = {}, host?: string): void {
  navigate(formatRoute(screen, query, host));
}

/** Changes the query of the screen; what is not named stays. */
export function choose(change: Readonly<Record<string, string | undefined>>): void {
  const { screen, query, host } = route.value;
  const address = formatRoute(screen, { ...query, ...change }, host);
  history.replaceState(null, '', address);
  route.value = parseRoute(location.pathname, location.search);
}

export function navigate(address: string): void {
  if (address === location.pathname + location.search) return;
  history.pushState(null, '', address);
  route.value = parseRoute(location.pathname, location.search);
}

/** A plain click stays on the page; any other does what the browser does with it. */
export function follow(event: MouseEvent, address: string): void {
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  navigate(address);
}

addEventListener('popstate', () => {
  route.value = parseRoute(location.pathname, location.search);
});

export const THEMES = ['system', 'light', 'dark'] as const;
export type Theme = (typeof THEMES)[number];

const THEME_KEY = 'weft-theme';
const stored = localStorage.getItem(THEME_KEY);
export const theme = signal<Theme>(THEMES.find((name) => name === stored) ?? 'system');

effect(() => {
  const { value } = theme;
  localStorage.setItem(THEME_KEY, value);
  if (value === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = value;
});
