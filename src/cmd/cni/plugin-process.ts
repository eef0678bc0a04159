import { readSync, writeSync } from 'node:fs';
import { hasErrno } from '../../errno.ts';
import { about } from './about.ts';
import type { PluginProcess } from './plugin.ts';

/** This process, with standard streams read and written as a whole. */
export function pluginProcess(): PluginProcess {
  return {
    env: process.env,
    readInput: () => readAll(0),
    print: (text) => writeAll(1, text),
    warn: (text) => writeAll(2, text),
    about,
  };
}

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
