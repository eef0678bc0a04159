import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './run.ts';

/** Of opening: the browser itself goes on. */
const TIMEOUT_MS = 10_000;

/**
 * Shows an address in the user's browser, where there is a graphical session; the caller has printed it in any case. Every user
 * of the machine can read the arguments of a process, and the address may be a secret: the browser is told of a file that only
 * this user can read, which leads there. The file stays until the result is disposed of.
 *
 * @param url with nothing in it that HTML would have to escape.
 */
export async function openInBrowser(url: string, signal: AbortSignal): Promise<Disposable> {
  const opened = new DisposableStack();
  const { DISPLAY, WAYLAND_DISPLAY } = process.env;
  if (!DISPLAY && !WAYLAND_DISPLAY) return opened;
  try {
    // Nobody else can enter the directory.
    const directory = mkdtempSync(join(tmpdir(), 'weft-ui-'));
    opened.defer(() => rmSync(directory, { recursive: true, force: true }));
    const file = join(directory, 'open.html');
    const page = pageThatLeadsTo(url);
    writeFileSync(file, page, { mode: 0o600, flag: 'wx' });
    await run(['xdg-open', file], { signal, timeoutMs: TIMEOUT_MS });
  } catch {
    // No temporary file, no such program, no browser.
  }
  return opened;
}

function pageThatLeadsTo(url: string): string {
  return `<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=${url}">
<title>weft ui</title>
<a href="${url}">weft ui</a>
`;
}
