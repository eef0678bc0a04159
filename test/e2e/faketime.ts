import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Debian's libfaketime, which answers a program's questions for the time of day; the monotonic clock goes on as it does. */
export function faketimeLibrary(): string {
  for (const triplet of readdirSync('/usr/lib')) {
    const directory = join('/usr/lib', triplet, 'faketime');
    const files = (() => {
      try {
        return readdirSync(directory);
      } catch {
        return [];
      }
    })();
    if (files.includes('libfaketimeMT.so.1')) return join(directory, 'libfaketimeMT.so.1');
  }
  throw new Error('libfaketime is not installed: apt-get install faketime');
}
