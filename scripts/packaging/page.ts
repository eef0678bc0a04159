import { join } from 'node:path';
import { build } from 'vite';
import { ROOT } from './architecture.ts';

export interface BuiltPage {
  /** By name; the names are PAGE_FILES in src/cmd/weft/page-files.ts. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Folders of the npm packages in it, from the repository's root. */
  readonly packages: readonly string[];
}

/** The page of `weft ui`, made from web/. */
export async function buildPage(): Promise<BuiltPage> {
  const built = await build({
    configFile: false,
    root: join(ROOT, 'web'),
    logLevel: 'warn',
    oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
    build: {
      write: false,
      target: 'es2022',
      modulePreload: false,
      // Nothing inside the page or its style sheet: its policy has no 'unsafe-inline' and no data: but for pictures.
      assetsInlineLimit: 0,
      rolldownOptions: {
        output: {
          entryFileNames: 'page.js',
          chunkFileNames: '[name].js',
          assetFileNames: ({ names }) => (names.some((name) => name.endsWith('.css')) ? 'page.css' : '[name][extname]'),
        },
      },
    },
  });
  if (!('output' in built)) throw new Error('vite made no page');
  const files = built.output.map((output) => {
    const content = output.type === 'chunk' ? output.code : output.source;
    return [output.fileName, typeof content === 'string' ? Buffer.from(content) : content] as const;
  });
  const modules = built.output.flatMap((output) => (output.type === 'chunk' ? output.moduleIds : []));
  const folders = modules.flatMap((id) => /node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(id)?.[0] ?? []);
  return { files: new Map(files), packages: [...new Set(folders)].sort() };
}
