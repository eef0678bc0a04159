import { readFileSync } from 'node:fs';

/** A file of /proc or /sys; empty where there is none: what it tells of may have ended meanwhile, or a kernel may not have it. */
export function readTextIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
