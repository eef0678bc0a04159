/** Entry of the plugin's user-land snapshot, for bench/cni.ts: what main.ts does, once the snapshot is loaded. */
import { startupSnapshot } from 'node:v8';
import { runPlugin } from '../src/cmd/cni/plugin.ts';
import { pluginProcess } from '../src/cmd/cni/plugin-process.ts';

startupSnapshot.setDeserializeMainFunction(() => {
  process.exitCode = runPlugin(pluginProcess());
});
