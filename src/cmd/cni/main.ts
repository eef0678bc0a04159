/**
 * `flannel`: the CNI plugin, flag- and file-compatible with flannel's. A runtime starts it for every container that comes
 * or goes, so what it imports is what every pod waits for: no npm package, few and small files, no streams.
 */
import { readSync, writeSync } from 'node:fs';
import { hasErrno } from '../../cni/cni-error.ts';
import { about } from './about.ts';
import { runPlugin } from './plugin.ts';

process.exitCode = runPlugin({
  env: process.env,
  readInput: () => readAll(0),
  print: (text) => writeAll(1, text),
  warn: (text) => writeAll(2, text),
  about,
});

function readAll(fd: number): string {
  const chunks: Buffer[] = [];
  const buffer = Buffer.allocUnsafe(65_536);
  for (;;) {
    const count = patiently(() => readSync(fd, buffer));
    if (count === 0) return Buffer.concat(chunks).toString('utf8');
    chunks.push(Buffer.from(buffer.subarray(0, count)));
  }
}

function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) at += patiently(() => writeSync(fd, bytes, at));
}

/** A runtime may hand over pipes that do not block: nothing to read, or no room, is no error then. */
function patiently(operation: () => number): number {
  for (;;) {
    try {
      return operation();
    } catch (error) {
      if (!hasErrno(error, 'EAGAIN')) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}
