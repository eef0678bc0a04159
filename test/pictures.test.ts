import assert from 'node:assert/strict';
import { globSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT } from '../scripts/packaging/architecture.ts';
import { IMAGES, MAX_PICTURE_BYTES, PICTURES, WIDTH } from '../scripts/pictures.ts';

describe('the pictures of the page', () => {
  it('are those that make screenshots takes, and no others', () => {
    assert.deepEqual(readdirSync(IMAGES).sort(), PICTURES.map(({ name }) => `${name}.png`).sort());
  });

  it('have the size that it gives them, and are light', () => {
    for (const { name, height, top = 0 } of PICTURES) {
      const file = join(IMAGES, `${name}.png`);
      const png = readFileSync(file);
      assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20)], [WIDTH, height - top], name);
      assert.ok(statSync(file).size <= MAX_PICTURE_BYTES, name);
    }
  });

  it('are each shown in a document', () => {
    const shown = new Set<string>();
    for (const document of globSync(['*.md', 'docs/**/*.md'], { cwd: ROOT })) {
      for (const [, target] of readFileSync(join(ROOT, document), 'utf8').matchAll(/!\[[^\]]+\]\(([^)]+\.png)\)/g))
        shown.add(relative(IMAGES, resolve(ROOT, dirname(document), target!)));
    }
    assert.deepEqual([...shown].sort(), PICTURES.map(({ name }) => `${name}.png`).sort());
  });
});
