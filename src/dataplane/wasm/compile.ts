/** Development only: from AssemblyScript to the checked-in module text. The product imports packets-module.ts alone. */
import { readFile } from 'node:fs/promises';
import { ARENA_PAGES } from './pages.ts';

export async function compilePackets(): Promise<Uint8Array> {
  const { default: asc } = await import('assemblyscript/asc');
  const source = await readFile(new URL('./packets.as.ts', import.meta.url), 'utf8');
  const pages = String(ARENA_PAGES);
  let binary: Uint8Array | undefined;
  const { error, stderr } = await asc.main(
    // biome-ignore format: one option a line says less here
    ['packets.as.ts', '-O3', '--enable', 'simd,threads,bulk-memory', '--sharedMemory', '--importMemory',
      '--initialMemory', pages, '--maximumMemory', pages, '--runtime', 'stub', '--noExportMemory', '-o', 'packets.wasm'],
    {
      readFile: (name: string) => (name === 'packets.as.ts' ? source : null),
      writeFile: (name: string, contents: string | Uint8Array) => {
        if (name === 'packets.wasm' && typeof contents !== 'string') binary = contents;
      },
      listFiles: () => [],
    },
  );
  if (error !== null || binary === undefined) throw new Error(`asc failed on packets.as.ts: ${stderr.toString()}`);
  return binary;
}

export function renderModule(binary: Uint8Array): string {
  const text = Buffer.from(binary).toString('base64');
  const lines = text.match(/.{1,100}/g) ?? [];
  return `/** Written by scripts/build-wasm.ts from packets.as.ts; do not edit. ${binary.length} bytes of WebAssembly, base64. */
export const PACKETS_MODULE: string = [
${lines.map((line) => `  '${line}',`).join('\n')}
].join('');
`;
}
