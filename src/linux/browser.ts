import { run } from './run.ts';

/** Of opening: the browser itself goes on. */
const TIMEOUT_MS = 10_000;

/**
 * Shows an address in the user's browser, where there is a graphical session. Returns whether something opened it; the
 * caller has printed the address in any case.
 */
export async function openInBrowser(url: string, signal: AbortSignal): Promise<boolean> {
  const { DISPLAY, WAYLAND_DISPLAY } = process.env;
  if (!DISPLAY && !WAYLAND_DISPLAY) return false;
  try {
    await run(['xdg-open', url], { signal, timeoutMs: TIMEOUT_MS });
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}
