import { useComputed } from '@preact/signals';
import type { ComponentChild } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { clock, count } from './format.ts';
import { HostScreen } from './host/host-screen.tsx';
import { MapScreen } from './map/map-screen.tsx';
import { MatrixScreen } from './matrix/matrix-screen.tsx';
import { problemsOf } from './model/hosts.ts';
import { formatRoute, SCREENS, type Screen } from './routes.ts';
import { filterText, follow, go, isPaused, overview, route, THEMES, theme, trouble } from './state.ts';
import { TimelineScreen } from './timeline/timeline-screen.tsx';
import { WalkScreen } from './walk/walk-screen.tsx';

const CONTENT: Readonly<Record<Screen, () => ComponentChild>> = {
  map: MapScreen,
  matrix: MatrixScreen,
  walk: WalkScreen,
  timeline: TimelineScreen,
  host: HostScreen,
};

export function App() {
  const main = useRef<HTMLElement>(null);
  const search = useRef<HTMLInputElement>(null);
  const { screen } = route.value;
  useKeys(search);
  const title = SCREENS.find(({ id }) => id === screen)?.title;
  const before = useRef(screen);
  useEffect(() => {
    document.title = `${title} · weft`;
    // So that a screen reader says where its reader is now, and the tabulator goes on from there.
    if (before.current !== screen) main.current?.focus();
    before.current = screen;
  }, [screen, title]);
  const Content = CONTENT[screen];
  return (
    <div class="frame">
      <header class="bar">
        <Brand />
        <nav class="tabs" aria-label="Screens">
          {SCREENS.map(({ id, title, key }) => (
            <Tab key={id} screen={id} title={title} shortcut={key} />
          ))}
        </nav>
        <span class="space" />
        <Pulse />
        <input
          ref={search}
          type="search"
          aria-label="Filter"
          aria-keyshortcuts="/"
          placeholder="Filter  /"
          spellcheck={false}
          autocomplete="off"
          value={filterText.value}
          onInput={(event) => {
            filterText.value = event.currentTarget.value;
          }}
        />
        <button
          type="button"
          class="button"
          aria-pressed={isPaused.value}
          aria-keyshortcuts="p"
          title="Pause (p)"
          onClick={togglePause}
        >
          {isPaused.value ? 'Paused' : 'Pause'}
        </button>
        <ThemeButton />
      </header>
      <main ref={main} tabIndex={-1} aria-label={title}>
        <h1 class="sr">{title}</h1>
        <Content />
      </main>
    </div>
  );
}

function Brand() {
  return (
    <a class="brand" href="/map" onClick={(event) => follow(event, '/map')}>
      <svg viewBox="0 0 32 32" aria-hidden="true" fill="none" stroke-width="3.4" stroke-linecap="round">
        <path d="M4 11h24M4 21h24" stroke="var(--tun)" />
        <path d="M11 4v24M21 4v24" stroke="var(--native)" stroke-dasharray="8 3.4" />
      </svg>
      weft
    </a>
  );
}

function Tab({ screen, title, shortcut }: { screen: Screen; title: string; shortcut: string }) {
  const address = formatRoute(screen);
  const isCurrent = route.value.screen === screen;
  return (
    <a
      href={address}
      aria-current={isCurrent ? 'page' : undefined}
      aria-keyshortcuts={shortcut}
      title={`${title} (${shortcut})`}
      onClick={(event) => follow(event, address)}
    >
      {title}
    </a>
  );
}

/** One line that says whether all is well, and how old what one sees is. */
function Pulse() {
  const summary = useComputed(() => {
    const now = overview.value;
    if (trouble.value !== undefined) return { tone: 'bad', text: trouble.value };
    if (now === undefined) return { tone: 'idle', text: 'asking the agents' };
    const problems = problemsOf(now);
    const hosts = count(now.hosts.length, 'host');
    if (problems.length === 0) return { tone: 'good', text: `${hosts}, no problem` };
    const tone = problems[0]!.tone;
    return { tone, text: `${hosts}, ${count(problems.length, 'problem')}` };
  });
  const { tone, text } = summary.value;
  const at = overview.value?.atMs;
  const isOld = at !== undefined && (isPaused.value || trouble.value !== undefined);
  return (
    <div class="pulse" role="status">
      <i class={`mark ${tone}`} aria-hidden="true" />
      <span class="cut" title={text}>
        {text}
      </span>
      {isOld && <span class="dim">as of {clock(at)}</span>}
    </div>
  );
}

function ThemeButton() {
  const next = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!;
  return (
    <button
      type="button"
      class="button"
      aria-label={`Theme: ${theme.value}; change to ${next}`}
      title={`Theme: ${theme.value}`}
      onClick={() => {
        theme.value = next;
      }}
    >
      <svg width="14" height="14" viewBox="0 0 16 16" aria-hidden="true">
        <circle cx="8" cy="8" r="6.2" fill="none" stroke="currentColor" stroke-width="1.6" />
        {theme.value !== 'light' && (
          <path
            d={theme.value === 'dark' ? 'M8 2a6 6 0 0 1 0 12a6 6 0 0 1 0-12' : 'M8 2a6 6 0 0 1 0 12z'}
            fill="currentColor"
          />
        )}
      </svg>
    </button>
  );
}

function togglePause(): void {
  isPaused.value = !isPaused.value;
}

/** `/` to the filter, `p` to pause, digits to the screens. Not while somebody types. */
function useKeys(search: { readonly current: HTMLInputElement | null }): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const target = event.target as HTMLElement;
      if (event.key === 'Escape' && target === search.current) {
        filterText.value = '';
        search.current?.blur();
        return;
      }
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (/^(?:INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && (target as HTMLInputElement).type !== 'radio') return;
      const screen = SCREENS.find(({ key }) => key === event.key);
      if (screen !== undefined) go(screen.id);
      else if (event.key === 'p') togglePause();
      else if (event.key === '/') search.current?.focus();
      else return;
      event.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, [search]);
}
