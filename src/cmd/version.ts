import { readFileSync } from 'node:fs';

/** Put in by the bundler (scripts/build-dist.ts). */
declare const WEFT_BUILD: { readonly version: string; readonly commit: string } | undefined;

function versionOfCheckout(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

/** Of package.json. */
export const VERSION: string = typeof WEFT_BUILD === 'undefined' ? versionOfCheckout() : WEFT_BUILD.version;
