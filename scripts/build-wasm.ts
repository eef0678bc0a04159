/**
 * Compiles src/dataplane/wasm/sum16.as.ts and writes the module as text into sum16-module.ts, which is checked in: the
 * product needs no compiler. A test compiles again and compares. Run: node scripts/build-wasm.ts
 */
import { writeFile } from 'node:fs/promises';
import { compileSum16, renderModule } from '../src/dataplane/wasm/compile.ts';

await writeFile(new URL('../src/dataplane/wasm/sum16-module.ts', import.meta.url), renderModule(await compileSum16()));
