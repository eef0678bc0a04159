import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { execPath } from 'node:process';
import { test } from 'node:test';
import { LonePages } from './lone-pages.ts';
import { cleanFileRanges, releaseIdleMemory } from './process-memory.ts';

function mapping(range: string, permissions: string, anonymousKib: number, path: string): string {
  return [
    `${range} ${permissions} 00001000 fe:00 4711                       ${path}`,
    'Size:               1024 kB',
    'Rss:                 512 kB',
    `Anonymous:      ${String(anonymousKib).padStart(8)} kB`,
    'VmFlags: rd ex mr mw me',
    '',
  ].join('\n');
}

test('only read-only private mappings of files without a page of their own may be dropped', () => {
  const smaps = [
    mapping('00400000-00500000', 'r-xp', 0, '/usr/bin/node'),
    mapping('00500000-00600000', 'r--p', 4, '/usr/bin/node'), // relocated data
    mapping('00600000-00700000', 'rw-p', 0, '/usr/bin/node'),
    mapping('00700000-00800000', 'r--s', 0, '/usr/bin/node'),
    mapping('7f0000000000-7f0000010000', 'r--p', 0, '/usr/bin/node'),
    mapping('7f0000010000-7f0000020000', 'r-xp', 0, '/usr/lib/libc.so.6'),
    mapping('7f0000020000-7f0000030000', 'r--p', 0, ''),
    mapping('7f0000030000-7f0000040000', 'r-xp', 0, '[vdso]'),
  ].join('');
  assert.deepEqual(cleanFileRanges(smaps), [
    { start: 0x400000, length: 0x100000 },
    { start: 0x7f0000000000, length: 0x10000 },
    { start: 0x7f0000010000, length: 0x10000 },
  ]);
  assert.deepEqual(cleanFileRanges(''), []);
});

test('the process goes on after its memory was released', () => {
  releaseIdleMemory(() => {});
  assert.equal(JSON.parse(JSON.stringify({ execPath })).execPath, execPath);
  assert.match(new Intl.DateTimeFormat('en', { dateStyle: 'full' }).format(0), /1970/);
  // Nor do pages that are needed again bring two megabytes with them (madvise(2): MADV_NOHUGEPAGE).
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-)/m);
  const own = mappings.find((text) => text.includes(' r-xp ') && text.split('\n')[0]?.endsWith(execPath));
  const flags = /^VmFlags: (.*)$/m.exec(own ?? '')?.[1]?.split(' ');
  assert.equal(flags?.includes('nh'), existsSync('/sys/kernel/mm/transparent_hugepage'));
  // Nor those around it.
  assert.equal(flags?.includes('uw'), LonePages.open() !== undefined);
});
