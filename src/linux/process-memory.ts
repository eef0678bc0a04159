import { readFileSync } from 'node:fs';
import { madvise, mallocTrim } from './ffi.ts';
import { LonePages, type MemoryRange } from './lone-pages.ts';

const MADV_DONTNEED = 4;
const MADV_NOHUGEPAGE = 15;

/** Asked for once: a kernel or seccomp filter that refuses does so again. */
let lonePages: { readonly opened: LonePages | undefined } | undefined;

/**
 * Gives back free memory that the C library keeps for later, and the pages of the executable and its libraries, most of which were
 * run or read once, when it started. What is needed again is mapped again from the page cache, as when it was first touched, but page
 * by page. Failures are of no consequence.
 * @param collectGarbage called in between: to find out what can go takes memory too.
 */
export function releaseIdleMemory(collectGarbage: () => void): void {
  const ranges = ownCleanRanges();
  collectGarbage();
  lonePages ??= { opened: LonePages.open() };
  for (const range of ranges) {
    const { start, length } = range;
    lonePages.opened?.add(range);
    // Without that, a page that is needed again brings two megabytes with it, where the page cache has the file in such pieces.
    madvise(start, length, MADV_NOHUGEPAGE);
    madvise(start, length, MADV_DONTNEED);
  }
  mallocTrim(0);
}

function ownCleanRanges(): readonly MemoryRange[] {
  try {
    return cleanFileRanges(readFileSync('/proc/self/smaps', 'latin1'));
  } catch {
    // A /proc that hides this takes nothing but the saving.
    return [];
  }
}

/**
 * The mappings of files that have no page of their own: read-only, private, and nothing in them that differs from the file
 * (relocated data, breakpoints), so that dropping their pages loses nothing. Of proc_pid_smaps(5).
 */
export function cleanFileRanges(smaps: string): MemoryRange[] {
  const ranges: MemoryRange[] = [];
  let current: MemoryRange | undefined;
  for (const line of smaps.split('\n')) {
    const header = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+\s*(.*)$/.exec(line);
    if (header !== null) {
      const [, from = '', to = '', permissions, name = ''] = header;
      const start = Number.parseInt(from, 16);
      const fits = name.startsWith('/') && (permissions === 'r-xp' || permissions === 'r--p');
      current = fits ? { start, length: Number.parseInt(to, 16) - start } : undefined;
    } else if (current !== undefined && /^Anonymous:\s+0 kB$/.test(line)) {
      ranges.push(current);
    }
  }
  return ranges;
}
