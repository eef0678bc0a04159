/**
 * Takes the place of koffi's own search for its native part in the single executable, where that part is an asset. dlopen(3)
 * wants a file: the one in the image, where no folder need be writable, or else one that is made for as long as the call
 * takes; the mapping stays.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { getRawAsset } from 'node:sea';
import { WeftError } from '../../errors.ts';

/** Seen from the executable's folder; scripts/packaging/image-root.ts puts it there. */
const INSTALLED = '../lib/weft/koffi.node';

/** One of them is almost always writable and without `noexec`. */
const FOLDERS = [tmpdir(), '/var/tmp', '/run', '/dev/shm'];

/** Loads koffi’s native part out of the executable. @throws WeftError WEFT_ADDON_UNLOADABLE. */
export function loadStatic(): unknown {
  const addon = new Uint8Array(getRawAsset('koffi.node'));
  const failures = new Set<string>();
  const installed = join(dirname(process.execPath), INSTALLED);
  if (isCopy(installed, addon)) return loadFile(installed);
  for (const folder of FOLDERS) {
    try {
      return loadFrom(folder, addon);
    } catch (error) {
      failures.add(`${folder}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new WeftError('WEFT_ADDON_UNLOADABLE', `cannot load the system call interface: ${[...failures].join('; ')}`, {
    hint: 'Give it a folder that is writable and not mounted noexec, in TMPDIR; in Kubernetes an emptyDir mounted at /tmp',
  });
}

/** A file of another version, or of somebody else, is left alone. */
function isCopy(path: string, addon: Uint8Array): boolean {
  try {
    return readFileSync(path).equals(addon);
  } catch {
    return false;
  }
}

function loadFile(path: string): unknown {
  const module = { exports: {} };
  process.dlopen(module, path);
  return module.exports;
}

/** The folder is ours alone, so nobody can put another file in the place of ours. */
function loadFrom(folder: string, addon: Uint8Array): unknown {
  const own = mkdtempSync(join(folder, 'weft-'));
  try {
    const path = join(own, 'koffi.node');
    writeFileSync(path, addon, { mode: 0o700, flag: 'wx' });
    return loadFile(path);
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}
