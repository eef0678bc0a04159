/**
 * Makes the pictures of the page in docs/images anew, from labs that run while it does: `make screenshots`. Needs what
 * `make browser` needs.
 */
import { mkdirSync, statSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { describeError } from '../src/errors.ts';
import type { LabResult } from '../src/lab/lab-result.ts';
import { run } from '../src/linux/run.ts';
import { ROOT } from './packaging/architecture.ts';
import { IMAGES, MAX_PICTURE_BYTES, PICTURES, WIDTH } from './pictures.ts';

const WEFT = join(ROOT, 'bin', 'weft');
/** Rates and lines need some looks. */
const LOOKS_MS = 12_000;
/** Each captures one packet. The pictures are of the one whose packet waited least for a processor, which others may have had. */
const LABS = 3;

async function take(lab: LabResult): Promise<void> {
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  try {
    for (const { name, path, colorScheme, height, top = 0, steps = 0, filter, row } of PICTURES) {
      const viewport = { width: WIDTH, height };
      const page = await browser.newPage({ viewport, colorScheme, reducedMotion: 'reduce' });
      // The address has the token of the page.
      const address = new URL(lab.page!);
      address.pathname = path;
      await page.goto(address.href);
      await page.waitForTimeout(LOOKS_MS);
      if (filter !== undefined) await page.getByRole('searchbox').fill(filter);
      for (let step = 0; step < steps; step++) await page.keyboard.press('ArrowRight');
      if (row !== undefined) await page.locator('tr', { hasText: row }).last().getByRole('button').click();
      await page.waitForTimeout(500);
      const file = join(IMAGES, `${name}.png`);
      await page.screenshot({ path: file, clip: { x: 0, y: top, width: WIDTH, height: height - top } });
      const { size } = statSync(file);
      if (size > MAX_PICTURE_BYTES) throw new Error(`${file} has ${size} bytes, more than ${MAX_PICTURE_BYTES}`);
      process.stdout.write(`docs/images/${name}.png  ${size} bytes\n`);
      await page.close();
    }
  } finally {
    await browser.close();
  }
}

mkdirSync(IMAGES, { recursive: true });
// Times in the pictures are to be those of a machine that does nothing else: agents, captures and browser come first.
setPriority(constants.priority.PRIORITY_HIGHEST);
try {
  const labs: LabResult[] = [];
  try {
    while (labs.length < LABS)
      labs.push(JSON.parse((await run([WEFT, 'lab', '--keep', '--json'])).stdout) as LabResult);
    const walkUs = ({ walk }: LabResult): number => walk?.durationUs ?? Number.POSITIVE_INFINITY;
    labs.sort((a, b) => walkUs(a) - walkUs(b));
    process.stdout.write(`walks: ${labs.map((lab) => `${walkUs(lab).toFixed(0)} µs`).join(', ')}\n`);
    await take(labs[0]!);
  } finally {
    for (const { id } of labs) await run([WEFT, 'lab', 'down', id]);
  }
} catch (error) {
  process.stderr.write(`weft: ${describeError(error)}\n`);
  process.exitCode = 1;
}
