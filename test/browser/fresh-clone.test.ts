/** What the README says first: a clone, one command, packets in a browser. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { run } from '../../src/linux/run.ts';
import { weft } from '../netns/lab-command.ts';
import { eventuallyHolds } from '../netns/waiting.ts';
import { noComplaints, openPage, startBrowser, until } from './browser.ts';

/** From the command to packets that move, with everything installed that scripts/setup.sh installs. */
const MAX_MS = 60_000;

/** The files of this repository without what was built, and the npm packages of this one. */
async function cloneInto(folder: string): Promise<void> {
  const list = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const { stdout } = await run(['git', '-c', 'safe.directory=*', '-C', ROOT, ...list]);
  for (const path of stdout.split('\0').filter((one) => one !== '' && existsSync(join(ROOT, one))))
    cpSync(join(ROOT, path), join(folder, path), { preserveTimestamps: true });
  // Else set-up would install into what the link leads to.
  const sum = await run(['sha256sum'], { stdin: readFileSync(join(ROOT, 'package-lock.json')) });
  assert.equal(readFileSync(join(ROOT, 'node_modules/.installed-from'), 'utf8').trim(), sum.stdout.trim());
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
}

describe('a fresh clone', () => {
  it('has packets that move in a browser soon after make lab', async (t) => {
    await using browser = await startBrowser();
    let tookMs = Number.POSITIVE_INFINITY;
    // What else the machine does at the moment may take half of it.
    for (let attempt = 1; attempt <= 2 && tookMs > MAX_MS; attempt++) {
      const clone = mkdtempSync(join(tmpdir(), 'weft-clone-'));
      let id: string | undefined;
      try {
        await cloneInto(clone);
        // A make of its own, and not a part of the one that runs this test.
        const env = { MAKEFLAGS: '', MAKELEVEL: '0', NODE_COMPILE_CACHE: join(clone, '.cache', 'compile') };
        await run(['scripts/setup.sh', 'lab'], { cwd: clone, env });
        const startedAt = performance.now();
        const { stdout } = await run(['make', 'lab', 'ARGS=--keep'], { cwd: clone, env, okExitCodes: 'any' });
        const madeMs = performance.now() - startedAt;
        id = /^weft lab (\S+) /m.exec(stdout)?.[1];
        const [address] = /http:\/\/127\.0\.0\.1:\d+\/#token=\S+/.exec(stdout) ?? [];
        assert.ok(id !== undefined && address !== undefined, stdout);
        await using reader = await openPage(browser, address, '/map');
        const { page } = reader;
        await until(page, "/[1-9]\\d* pkt.s/.test(document.querySelector('.rows')?.textContent)");
        const dots = "document.querySelectorAll('canvas')[1]";
        await until(
          page,
          `${dots}.getContext('2d').getImageData(0, 0, ${dots}.width, ${dots}.height).data.some((value) => value > 0)`,
        );
        const before = await page.evaluate(`${dots}.toDataURL()`);
        await eventuallyHolds(async () =>
          assert.ok((await page.evaluate(`${dots}.toDataURL()`)) !== before, 'they move'),
        );
        tookMs = performance.now() - startedAt;
        const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
        t.diagnostic(`packets move after ${seconds(tookMs)}, make lab took ${seconds(madeMs)}, load ${loadavg()[0]}`);
        noComplaints(reader);
      } finally {
        if (id !== undefined) await run([...weft, 'lab', 'down', id]);
        rmSync(clone, { recursive: true, force: true });
      }
    }
    assert.ok(tookMs <= MAX_MS, `packets move after ${tookMs} ms`);
  });
});
