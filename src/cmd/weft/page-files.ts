import { existsSync, readFileSync } from 'node:fs';
import { getAsset, getAssetKeys, isSea } from 'node:sea';
import { fileURLToPath } from 'node:url';
import { WeftError } from '../../errors.ts';
import type { PageFiles } from '../../ui/app.ts';

/** What scripts/packaging/page.ts makes, and no more; in the single executable they are assets, with `page/` before the name. */
export const PAGE_FILES: readonly string[] = ['index.html', 'page.js', 'page.css', 'icon.svg'];

/** @throws WeftError WEFT_UI_PAGE_MISSING when the page has not been built. */
export function pageFiles(): PageFiles {
  if (isSea()) {
    const keys = new Set(getAssetKeys());
    return { read: (name) => (keys.has(`page/${name}`) ? new Uint8Array(getAsset(`page/${name}`)) : undefined) };
  }
  const folder = fileURLToPath(new URL('../../../dist/page/', import.meta.url));
  if (!existsSync(`${folder}index.html`)) {
    throw new WeftError('WEFT_UI_PAGE_MISSING', `could not find the page in ${folder}: it has not been built`, {
      hint: 'Run: make page',
    });
  }
  return { read: (name) => (PAGE_FILES.includes(name) ? readFileSync(`${folder}${name}`) : undefined) };
}
