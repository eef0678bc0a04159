/**
 * Makes the pictures of the page in docs/images anew, from a lab that runs while it does: `make screenshots`. Needs what
 * `make browser` needs.
 */
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { describeError } from '../src/errors.ts';
import type { LabResult } from '../src/lab/lab-result.ts';
import { run } from '../src/linux/run.ts';
import { ROOT } from './packaging/architecture.ts';

const IMAGES = join(ROOT, 'docs', 'images');
const WEFT = join(ROOT, 'bin', 'weft');
/** A clone is fetched by people who only want to build it. */
const MAX_BYTES = 100_000;
/** Rates and lines need some looks. */
const LOOKS_MS = 12_000;

const WIDTH = 1080;
interface Picture {
  /** Of the file. */
  readonly name: string;
  readonly path: string;
  readonly colorScheme: 'light' | 'dark';
  readonly height: number;
  /** What is left out above. */
  readonly top?: number;
  /** Of the walk. */
  readonly steps?: number;
  /** A row that is chosen, by a text in it. */
  readonly row?: string;
}

const PICTURES: readonly Picture[] = [
  { name: 'walk', path: '/walk', colorScheme: 'light', height: 680, top: 90, steps: 8 },
  { name: 'map', path: '/map', colorScheme: 'dark', height: 460 },
  { name: 'matrix', path: '/matrix', colorScheme: 'dark', height: 260 },
  { name: 'timeline', path: '/timeline', colorScheme: 'dark', height: 460, row: 'kernel-changed' },
  { name: 'host', path: '/host/h1', colorScheme: 'light', height: 560 },
];

async function take(lab: LabResult): Promise<void> {
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  try {
    for (const { name, path, colorScheme, height, top = 0, steps = 0, row } of PICTURES) {
      const viewport = { width: WIDTH, height };
      const page = await browser.newPage({ viewport, colorScheme, reducedMotion: 'reduce' });
      // The address has the token of the page.
      const address = new URL(lab.page!);
      address.pathname = path;
      await page.goto(address.href);
      await page.waitForTimeout(LOOKS_MS);
      for (let step = 0; step < steps; step++) await page.keyboard.press('ArrowRight');
      if (row !== undefined) await page.locator('tr', { hasText: row }).last().getByRole('button').click();
      await page.waitForTimeout(500);
      const file = join(IMAGES, `${name}.png`);
      await page.screenshot({ path: file, clip: { x: 0, y: top, width: WIDTH, height: height - top } });
      const { size } = statSync(file);
      if (size > MAX_BYTES) throw new Error(`${file} has ${size} bytes, more than ${MAX_BYTES}`);
      process.stdout.write(`docs/images/${name}.png  ${size} bytes\n`);
      await page.close();
    }
  } finally {
    await browser.close();
  }
}

mkdirSync(IMAGES, { recursive: true });
try {
  const { stdout } = await run([WEFT, 'lab', '--keep', '--json']);
  const lab = JSON.parse(stdout) as LabResult;
  try {
    await take(lab);
  } finally {
    await run([WEFT, 'lab', 'down', lab.id]);
  }
} catch (error) {
  process.stderr.write(`weft: ${describeError(error)}\n`);
  process.exitCode = 1;
}
