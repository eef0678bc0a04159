import { chmod, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type BuildOptions, build, type OutputFile, type Plugin } from 'esbuild';
import type { SourceTable } from '../../src/cmd/single-executable/source-positions.ts';
import { run } from '../../src/linux/run.ts';
import { NODE_VARIABLES } from '../../src/node-variables.ts';
import { ROOT } from './architecture.ts';
import { buildPage } from './page.ts';
import { sourceTable } from './source-table.ts';

export interface Bundle {
  /** CommonJS: src/cmd/single-executable/main.ts and everything it needs. */
  readonly program: string;
  /** Where in src/ the program comes from. */
  readonly sources: SourceTable;
  /** An ES module: what a packet worker thread runs. */
  readonly worker: string;
  /** CommonJS, by name: what only some agents load, see {@link PARTS}. */
  readonly parts: ReadonlyMap<string, string>;
  /** Files of the page of `weft ui`, by name. */
  readonly page: ReadonlyMap<string, Uint8Array>;
  /** Of the npm packages in it. */
  readonly licences: string;
  /** Folders of the npm packages in it. */
  readonly packages: readonly string[];
}

/** koffi looks for its native part in node_modules; in the executable it is an asset. */
const nativePart: Plugin = {
  name: 'koffi-addon',
  setup(context) {
    const replacement = join(ROOT, 'src/cmd/single-executable/koffi-addon.ts');
    context.onResolve({ filter: /\/static\.js$/ }, ({ importer }) =>
      importer.includes('/node_modules/koffi/') ? { path: replacement } : undefined,
    );
  },
};

/**
 * Packages that only some agents load, by the name of their part, which is an asset: a program's text is in the memory of each of its
 * processes, and of these alone 2 MB. The client of Kubernetes is for ways to log in that few clusters have, gRPC for etcd.
 */
const PARTS: Readonly<Record<string, readonly string[]>> = {
  'kube-client': ['@kubernetes/client-node/dist/config.js'],
  grpc: ['@grpc/grpc-js', '@grpc/proto-loader'],
};

/** In a program, an import of a package of a part is that of what the part exports under its name. */
const fromParts: Plugin = {
  name: 'parts',
  setup(context) {
    const parts = new Map(Object.entries(PARTS).flatMap(([part, names]) => names.map((name) => [name, part] as const)));
    context.onResolve({ filter: /^@/ }, ({ path }) => (parts.has(path) ? { path, namespace: 'part' } : undefined));
    context.onLoad({ filter: /.*/, namespace: 'part' }, ({ path }) => ({
      contents: `module.exports = require('./src/cmd/single-executable/part.ts').loadPart('${parts.get(path)}')['${path}'];`,
      resolveDir: ROOT,
    }));
  },
};

const exportsOf = (names: readonly string[]): string =>
  `module.exports = { ${names.map((name) => `'${name}': require('${name}')`).join(', ')} };`;

/** What src/cmd finds as WEFT_BUILD: the JSON text of version and commit. */
async function buildStamp(signal: AbortSignal): Promise<string> {
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const head = await run(['git', '-C', ROOT, 'rev-parse', '--short=12', 'HEAD'], { signal, okExitCodes: 'any' });
  return JSON.stringify({ version, commit: head.exitCode === 0 ? head.stdout.trim() : 'unknown' });
}

/**
 * The first lines of the plugin, for the shell and for Node.js, to which the second is a text and a comment: only a shell can
 * take away what would keep Node.js from starting.
 */
const START = `#!/bin/sh
':' //; unset ${NODE_VARIABLES.join(' ')}; exec '${process.execPath}' "$0" "$@"`;

/**
 * The CNI plugin alone, as a program for the Node.js that runs this, written to `output`, a name that ends with .cjs: Node.js
 * starts CommonJS faster than modules. A link named `flannel` to it will do as well.
 */
export async function bundlePlugin(output: string, signal: AbortSignal, entry = 'src/cmd/cni/main.ts'): Promise<void> {
  await build({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    outfile: output,
    bundle: true,
    minify: true,
    platform: 'node',
    format: 'cjs',
    target: 'node24',
    logLevel: 'warning',
    // Only asked for where there is no stamp.
    banner: { js: START },
    define: { WEFT_BUILD: await buildStamp(signal), 'import.meta.url': '""' },
  });
  await chmod(output, 0o755);
}

const MODULE_FOLDER = "weftModuleFolder=process.getBuiltinModule('node:path').dirname(process.execPath)";

/** All programs as text. Function names stay, so that stack traces can be read. */
export async function bundle(signal: AbortSignal): Promise<Bundle> {
  const stamp = await buildStamp(signal);
  const common = {
    absWorkingDir: ROOT,
    bundle: true,
    write: false,
    platform: 'node',
    target: `node${process.versions.node.split('.')[0]}`,
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
    plugins: [nativePart],
    // The executable is the only file there is: whoever asks where its module lies, is in it.
    define: {
      'import.meta.dirname': 'weftModuleFolder',
      'import.meta.main': 'false',
      'import.meta.url': 'weftModuleUrl',
      WEFT_BUILD: stamp,
    },
  } satisfies BuildOptions & { write: false; metafile: true };
  const banner = {
    js: `const weftModuleUrl=require('node:url').pathToFileURL(process.execPath).href,${MODULE_FOLDER};`,
  };
  const [page, program, worker, ...parts] = await Promise.all([
    buildPage(),
    build({
      ...common,
      plugins: [nativePart, fromParts],
      entryPoints: ['src/cmd/single-executable/main.ts'],
      format: 'cjs',
      outfile: 'program.js',
      sourcemap: 'external',
      sourcesContent: false,
      banner,
    }),
    build({
      ...common,
      entryPoints: ['src/cmd/flanneld/forwarder-worker.ts'],
      format: 'esm',
      banner: {
        js: `import{pathToFileURL as weftPathToUrl}from'node:url';const weftModuleUrl=weftPathToUrl(process.execPath).href,${MODULE_FOLDER};`,
      },
    }),
    ...Object.values(PARTS).map((names) =>
      build({ ...common, stdin: { contents: exportsOf(names), resolveDir: ROOT }, format: 'cjs', banner }),
    ),
  ]);
  const folders = new Set([
    ...page.packages,
    ...[program, worker, ...parts].flatMap(({ metafile }) =>
      Object.keys(metafile.inputs).flatMap((path) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []),
    ),
  ]);
  const notices = await Promise.all([...folders].sort().map(noticeOf));
  return {
    program: textOf(program.outputFiles, 'program.js'),
    sources: sourceTable(textOf(program.outputFiles, 'program.js.map'), (path) => path.startsWith('src/')),
    worker: worker.outputFiles[0]!.text,
    parts: new Map(Object.keys(PARTS).map((name, index) => [name, parts[index]!.outputFiles[0]!.text])),
    page: page.files,
    licences: notices.join('\n'),
    packages: [...folders].sort(),
  };
}

function textOf(files: readonly OutputFile[], name: string): string {
  const file = files.find(({ path }) => path.endsWith(`/${name}`));
  if (file === undefined) throw new Error(`esbuild made no ${name}`);
  return file.text;
}

async function noticeOf(folder: string): Promise<string> {
  const manifest = JSON.parse(await readFile(join(ROOT, folder, 'package.json'), 'utf8')) as Record<string, string>;
  const files = (await readdir(join(ROOT, folder))).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file)).sort();
  const texts = await Promise.all(files.map((file) => readFile(join(ROOT, folder, file), 'utf8')));
  const text = texts.join('\n').trim() || `Licence: ${manifest.license}`;
  return `==== ${manifest.name}@${manifest.version}\n\n${text}\n`;
}
