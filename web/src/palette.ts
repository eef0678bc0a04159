/** The colours of style.css for what is drawn by code: a canvas, or a picture that leaves the page. */
import { useEffect, useState } from 'preact/hooks';
import { theme } from './state.ts';

const NAMES = [
  'bg',
  'panel',
  'raised',
  'line',
  'edge',
  'text',
  'dim',
  'good',
  'warn',
  'bad',
  'idle',
  'tun',
  'native',
] as const;

export type ColourName = (typeof NAMES)[number];
export type Palette = Readonly<Record<ColourName, string>>;

/** As the theme has them now: a custom property itself would only give back `light-dark(…)`. */
export function readPalette(): Palette {
  const probe = document.createElement('span');
  probe.hidden = true;
  document.body.append(probe);
  const entries = NAMES.map((name) => {
    probe.style.color = `var(--${name})`;
    return [name, getComputedStyle(probe).color] as const;
  });
  probe.remove();
  return Object.fromEntries(entries) as Palette;
}

/** Those of now; a component that uses it is drawn anew when the theme changes. */
export function usePalette(): Palette {
  return useThemed(readPalette);
}

/** What `read` takes from the style sheet, read anew when the theme changes. */
export function useThemed<T>(read: () => T): T {
  const [value, setValue] = useState(read);
  const chosen = theme.value;
  // The theme is what changes what is read.
  useEffect(() => {
    setValue(read);
    return onSystemTheme(() => setValue(read));
  }, [chosen]);
  return value;
}

/** Calls back when the system's theme changes. Returns how to stop. */
function onSystemTheme(callback: () => void): () => void {
  const query = matchMedia('(prefers-color-scheme: dark)');
  query.addEventListener('change', callback);
  return () => query.removeEventListener('change', callback);
}
