/** Each screen has an address of its own, with what is chosen on it in the query. Pure. */

export const SCREENS = [
  { id: 'map', title: 'Map', key: '1' },
  { id: 'matrix', title: 'Matrix', key: '2' },
  { id: 'walk', title: 'Walk', key: '3' },
  { id: 'timeline', title: 'Timeline', key: '4' },
  { id: 'host', title: 'Host', key: '5' },
] as const;

export type Screen = (typeof SCREENS)[number]['id'];

export interface Route {
  readonly screen: Screen;
  /** Of the host screen. */
  readonly host?: string;
  readonly query: Readonly<Record<string, string>>;
}

export function parseRoute(path: string, search: string): Route {
  const [first = '', second] = path.split('/').slice(1);
  const screen = SCREENS.find(({ id }) => id === first)?.id ?? 'map';
  const query = Object.fromEntries(new URLSearchParams(search));
  const host = screen === 'host' && second ? decoded(second) : undefined;
  return { screen, query, ...(host !== undefined && { host }) };
}

/** Queries without a value are left out. */
export function formatRoute(
  screen: Screen,
  query: Readonly<Record<string, string | undefined>> = {},
  host?: string,
): string {
  const chosen = Object.entries(query).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const search = new URLSearchParams(chosen).toString();
  const path = host === undefined ? `/${screen}` : `/host/${encodeURIComponent(host)}`;
  return search === '' ? path : `${path}?${search}`;
}

/** What is no URI component stands for itself. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
