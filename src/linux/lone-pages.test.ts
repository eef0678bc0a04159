import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { release } from 'node:os';
import { execPath } from 'node:process';
import { test } from 'node:test';
import { close, madvise, userfaultfd, write } from './ffi.ts';
import { LonePages, type MemoryRange } from './lone-pages.ts';

const PAGE_BYTES = 4096;
/** What the kernel maps together, at its default. */
const AROUND_PAGES = 16;
const MADV_DONTNEED = 4;

/** The largest part of the executable that is run; Node.js 24 has its program text in several. */
function ownText(): MemoryRange {
  const parts = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((text) => text.includes(' r-xp ') && text.endsWith(execPath))
    .map((line): MemoryRange => {
      const [start = 0, end = 0] = line
        .split(' ', 1)[0]!
        .split('-')
        .map((text) => Number.parseInt(text, 16));
      return { start, length: end - start };
    });
  return parts.toSorted((one, other) => other.length - one.length)[0]!;
}

/** Of so many pages, which are mapped (proc_pid_pagemap(5)). */
function mapped(start: number, pages: number): boolean[] {
  const file = openSync('/proc/self/pagemap', 'r');
  try {
    const entries = new BigUint64Array(pages);
    readSync(file, entries, 0, entries.byteLength, (start / PAGE_BYTES) * 8);
    return Array.from(entries, (entry) => entry >> 63n === 1n);
  } finally {
    closeSync(file);
  }
}

/** Whether this kernel, and what filters its system calls, should have it. */
function isToBeHad(): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const fd = userfaultfd(1);
  if (fd >= 0) close(fd);
  return fd >= 0 && (major > 6 || (major === 6 && minor >= 10));
}

test('a page of the executable that is touched again is mapped alone', () => {
  const lonePages = LonePages.open();
  if (lonePages === undefined) {
    assert.ok(!isToBeHad(), 'this kernel has it');
    return;
  }
  const text = ownText();
  lonePages.add(text);
  assert.equal(madvise(text.start, text.length, MADV_DONTNEED), 0);
  // Somewhere where nothing runs now; the kernel looks at whole windows.
  const windowBytes = AROUND_PAGES * PAGE_BYTES;
  let at = Math.ceil(text.start / windowBytes) * windowBytes;
  while (mapped(at, AROUND_PAGES).includes(true)) at += windowBytes;
  assert.ok(at + windowBytes <= text.start + text.length);
  // Whoever writes there has the kernel read the byte, as if the process did.
  const sink = openSync('/dev/urandom', 'w');
  assert.equal(write(sink, at + 8 * PAGE_BYTES, 1), 1);
  closeSync(sink);
  assert.deepEqual(
    mapped(at, AROUND_PAGES),
    Array.from({ length: AROUND_PAGES }, (_, page) => page === 8),
  );
});
