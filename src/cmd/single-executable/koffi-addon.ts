/**
 * Takes the place of koffi's own search for its native part in the single executable, where that part is an asset. dlopen(3)
 * wants a file: the one in the image, where no folder need be writable, or else one that is made for as long as the call
 * takes; the mapping stays.
 */
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { getRawAsset } from 'node:sea';
import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads';
import { WeftError } from '../../errors.ts';

/** Seen from the executable's folder; scripts/packaging/image-root.ts puts it there. */
const INSTALLED = '../lib/weft/koffi.node';

/** One of them is almost always writable and without `noexec`. */
const FOLDERS = [tmpdir(), '/var/tmp', '/run', '/dev/shm'];

/** Under which worker threads are told where the file is, which has no name any more. */
const LOADED = 'weft koffi.node';

/**
 * Loads koffi’s native part out of the executable: worker threads the very file that the main thread has loaded, of which the process
 * then has one mapping. @throws WeftError WEFT_ADDON_UNLOADABLE.
 */
export function loadStatic(): unknown {
  const loaded = getEnvironmentData(LOADED);
  if (typeof loaded === 'string') return loadFile(loaded);
  const addon = new Uint8Array(getRawAsset('koffi.node'));
  const failures = new Set<string>();
  const installed = join(dirname(process.execPath), INSTALLED);
  if (isCopy(installed, addon)) return loadForAll(installed);
  for (const folder of FOLDERS) {
    try {
      return loadFrom(folder, addon);
    } catch (error) {
      failures.add(`${folder}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new WeftError('WEFT_ADDON_UNLOADABLE', `cannot load the system call interface: ${[...failures].join('; ')}`, {
    hint: 'Set TMPDIR to a directory that is writable and not mounted noexec; in Kubernetes, mount an emptyDir at /tmp',
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

function loadForAll(path: string): unknown {
  const module = loadFile(path);
  const held = `/proc/self/fd/${openSync(path, 'r')}`;
  if (existsSync(held)) setEnvironmentData(LOADED, held);
  return module;
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
    return loadForAll(path);
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}
