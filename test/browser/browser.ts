/** The page in Debian's Chromium. */
import assert from 'node:assert/strict';
import { constants, getPriority, setPriority } from 'node:os';
import axe from 'axe-core';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { pageFiles } from '../../src/cmd/weft/page-files.ts';
import type { LabResult } from '../../src/lab/lab-result.ts';
import type { AgentSource } from '../../src/ui/agent-source.ts';
import { uiApp } from '../../src/ui/app.ts';
import { Fleet, type FleetOptions } from '../../src/ui/fleet.ts';
import { PageAccess } from '../../src/ui/page-access.ts';
import { startPageServer } from '../../src/ui/page-server.ts';

/** For what happens within a second on an idle machine. */
const PATIENCE_MS = 60_000;

/** @param isFirst the processors are the browser's before they are anybody else's: for what is measured in it. */
export async function startBrowser({ isFirst = false } = {}): Promise<Browser & AsyncDisposable> {
  const before = getPriority();
  // Its processes inherit it.
  if (isFirst) setPriority(constants.priority.PRIORITY_HIGHEST);
  // Tests run as root, for which Chromium has no sandbox; it opens this machine's own pages only.
  const browser = await chromium
    .launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] })
    .finally(() => setPriority(before));
  return Object.assign(browser, { [Symbol.asyncDispose]: () => browser.close() });
}

/** Serves the page with these agents; returns its address, with the token. */
export async function servePage(
  sources: readonly AgentSource[],
  lab?: LabResult,
  options: FleetOptions = {},
): Promise<AsyncDisposable & { readonly address: string }> {
  const fleet = new Fleet(sources, options);
  const access = new PageAccess();
  const app = uiApp({ fleet, files: pageFiles(), hostNames: ['127.0.0.1'], access, lab: () => lab });
  const server = await startPageServer(app, '127.0.0.1', 0, new AbortController().signal);
  return {
    address: access.address(`http://127.0.0.1:${server.port}`),
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      fleet[Symbol.dispose]();
    },
  };
}

export interface Reader extends AsyncDisposable {
  readonly page: Page;
  /** What the browser complained about: errors of scripts, refusals of the page's policy. */
  readonly complaints: string[];
}

/** The address of one screen, `/map?host=h1`, of a page whose own address has the token. */
export function screenOf(page: string, path: string): string {
  return new URL(path, page).href + new URL(page).hash;
}

/** What the page's script sends along. */
export function headersFor(page: string): { readonly authorization: string } {
  return { authorization: `Bearer ${new URLSearchParams(new URL(page).hash.slice(1)).get('token')}` };
}

/** A window on a screen of the page. */
export async function openPage(
  browser: Browser,
  address: string,
  path: string,
  options: BrowserContextOptions = {},
): Promise<Reader> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 760 }, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => {
    // The answer of an agent that is away.
    const isRefusal = /status of 502/.test(message.text());
    if (message.type() === 'error' && !isRefusal) complaints.push(message.text());
  });
  await page.goto(screenOf(address, path));
  return { page, complaints, [Symbol.asyncDispose]: () => context.close() };
}

/** Everything that axe finds, a line each. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const found = (await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')) as {
    violations: { id: string; nodes: { target: string[]; failureSummary?: string }[] }[];
  };
  return found.violations.flatMap(({ id, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${id}: ${target.join(' ')}: ${failureSummary ?? ''}`),
  );
}

/** @throws AssertionError when this is not on the page in time. */
export async function seesText(page: Page, text: string | RegExp): Promise<void> {
  await page.getByText(text).first().waitFor();
}

/** Waits until an expression is true in the page. (Playwright's own way to wait would need `unsafe-eval` in the page's policy.) */
export async function until(page: Page, expression: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while ((await page.evaluate(`Boolean(${expression})`)) !== true) {
    assert.ok(performance.now() < deadline, `in time: ${expression}`);
    await page.waitForTimeout(50);
  }
}

/** The rows of a table on the screen of a host: texts of the cells, and of a line how many pixels of it are drawn. */
export async function hostRows(page: Page, heading: string): Promise<string[][]> {
  return (await page.evaluate(`(() => {
    const card = [...document.querySelectorAll('.card')].find((each) => each.querySelector('h2')?.textContent === ${JSON.stringify(heading)});
    const drawnOn = (canvas) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((value, index) => index % 4 === 3 && value > 200).length;
    };
    return Array.from(card?.querySelectorAll('tbody tr') ?? [], (row) =>
      Array.from(row.querySelectorAll('td'), (cell) => {
        const canvas = cell.querySelector('canvas');
        return canvas === null ? cell.textContent : String(drawnOn(canvas));
      }),
    );
  })()`)) as string[][];
}

export function noComplaints({ complaints }: Reader): void {
  assert.deepEqual(complaints, []);
}
