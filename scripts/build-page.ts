/** `make page`: the page of `weft ui`, from web/ to dist/page/, with what it weighs. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { DIST } from './packaging/architecture.ts';
import { buildPage } from './packaging/page.ts';

const folder = join(DIST, 'page');
const { files } = await buildPage();
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const kib = (count: number): string => `${(count / 1024).toFixed(1)} KiB`;
// index.html last: make goes by its time.
for (const [name, bytes] of [...files].sort(([a], [b]) => Number(a === 'index.html') - Number(b === 'index.html'))) {
  writeFileSync(join(folder, name), bytes);
  process.stdout.write(`dist/page/${name}  ${kib(bytes.length)}, with gzip ${kib(gzipSync(bytes).length)}\n`);
}
