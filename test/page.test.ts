import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { ROOT } from '../scripts/packaging/architecture.ts';
import { type BuiltPage, buildPage } from '../scripts/packaging/page.ts';
import { PAGE_FILES } from '../src/cmd/weft/page-files.ts';

/** The page is on each node's image, and some look at it through a slow tunnel. */
const MAX_GZIP_BYTES = 150 * 1024;

describe('the page of weft ui', () => {
  let page: BuiltPage;
  const text = (name: string): string => Buffer.from(page.files.get(name)!).toString();
  before(async () => {
    page = await buildPage();
  });

  it('is the files that are served, and weighs no more than it may', () => {
    assert.deepEqual([...page.files.keys()].sort(), [...PAGE_FILES].sort());
    const weight = [...page.files.values()].reduce((sum, bytes) => sum + gzipSync(bytes).length, 0);
    assert.ok(weight <= MAX_GZIP_BYTES, `${weight} bytes with gzip`);
  });

  it('loads nothing from elsewhere, and has nothing inline that its policy would refuse', () => {
    const html = text('index.html');
    assert.deepEqual([...html.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, target]) => target).sort(), [
      '/icon.svg',
      '/page.css',
      '/page.js',
    ]);
    assert.doesNotMatch(html, /<script(?![^>]*src=)|<style|style=|\son\w+=/);
    assert.doesNotMatch(text('page.css'), /url\(|@import/);
    // Names of XML vocabularies are no addresses.
    const addresses = (text('page.js').match(/https?:\/\/[\w./-]+/g) ?? []).filter(
      (url) => !url.startsWith('http://www.w3.org/'),
    );
    assert.deepEqual(addresses, []);
  });

  it('puts no text into the page as HTML', () => {
    const sources = globSync('web/src/**/*.{ts,tsx}', { cwd: ROOT });
    assert.ok(sources.length > 30);
    for (const path of sources) {
      assert.doesNotMatch(
        readFileSync(join(ROOT, path), 'utf8'),
        /innerHTML|outerHTML|insertAdjacentHTML|document\.write/i,
        path,
      );
    }
  });
});
