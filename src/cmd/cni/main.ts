/**
 * `flannel`: the CNI plugin, flag- and file-compatible with flannel's. A runtime starts it for every container that comes
 * or goes, so what it imports is what every pod waits for: no npm package, few and small files, no streams.
 */
import { runPlugin } from './plugin.ts';
import { pluginProcess } from './plugin-process.ts';

process.exitCode = runPlugin(pluginProcess());
