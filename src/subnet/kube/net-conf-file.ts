import { readFile } from 'node:fs/promises';
import type { BackendLookup } from '../../config/backend-config.ts';
import { parseNetConf } from '../../config/net-conf.ts';
import type { NetworkConfig } from '../../config/network-config.ts';
import { hasErrno } from '../../errno.ts';
import { WeftError } from '../../errors.ts';

/**
 * net-conf.json of --net-config-path. @throws WeftError WEFT_CONFIG_MISSING, WEFT_CONFIG_UNREADABLE, WEFT_CONFIG_INVALID.
 */
export async function readNetConf(path: string, backends: BackendLookup, signal: AbortSignal): Promise<NetworkConfig> {
  signal.throwIfAborted();
  let text: string;
  try {
    text = await readFile(path, { encoding: 'utf8', signal });
  } catch (error) {
    signal.throwIfAborted();
    const absent = hasErrno(error, 'ENOENT');
    throw new WeftError(
      absent ? 'WEFT_CONFIG_MISSING' : 'WEFT_CONFIG_UNREADABLE',
      `failed to read net conf: ${error instanceof Error ? error.message : String(error)}`,
      { hint: 'Mount the ConfigMap with net-conf.json, or name the file by --net-config-path.', cause: error },
    );
  }
  return parseNetConf(text, { source: path, validation: 'kube', backends });
}
