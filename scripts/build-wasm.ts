/**
 * Compiles src/dataplane/wasm/packets.as.ts and writes the module as text into packets-module.ts, which is checked in: the
 * product needs no compiler. A test compiles again and compares. Run: node scripts/build-wasm.ts
 */
import { writeFile } from 'node:fs/promises';
import { compilePackets, renderModule } from '../src/dataplane/wasm/compile.ts';

await writeFile(
  new URL('../src/dataplane/wasm/packets-module.ts', import.meta.url),
  renderModule(await compilePackets()),
);
