/**
 * `make cni-plugin`: the CNI plugin `flannel` as one file for Node.js, dist/flannel.cjs, which bin/flannel starts when it is
 * there. One small file is the fastest way to start it: see docs/adr/0012-cni-plugin-is-one-bundled-file.md.
 */
import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { bundlePlugin } from './packaging/bundle.ts';

const output = fileURLToPath(new URL('../dist/flannel.cjs', import.meta.url));
await bundlePlugin(output, AbortSignal.timeout(60_000));
process.stderr.write(`dist/flannel.cjs: ${statSync(output).size} bytes\n`);
