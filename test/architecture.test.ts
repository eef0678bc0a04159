import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { importsOf } from './architecture/imports.ts';
import { mayImport, problemsOf } from './architecture/rules.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The problems of a tree made of `path: source`. */
const check = (files: Record<string, string>): string[] => problemsOf(new Map(Object.entries(files)));
/** One problem, and it says this. */
function refuses(files: Record<string, string>, expected: RegExp): void {
  const problems = check(files);
  assert.equal(problems.length, 1, problems.join('\n'));
  assert.match(problems[0]!, expected);
}

describe('this repository', () => {
  const paths = globSync(['{src,test,bench,scripts}/**/*.ts', 'web/**/*.{ts,tsx}'], {
    cwd: root,
    // AssemblyScript, not TypeScript: it is compiled by itself and imports nothing.
    exclude: (path) => path.includes('node_modules') || path.endsWith('.as.ts'),
  });
  const sources = new Map(paths.sort().map((path) => [path, readFileSync(`${root}/${path}`, 'utf8')]));

  it('keeps the direction of imports and the form of files', () => {
    assert.ok(sources.has('src/errors.ts') && sources.has('src/linux/ffi.ts'), 'the sources were found');
    assert.deepEqual(problemsOf(sources), []);
  });

  it('is read: the imports that certainly exist are seen', () => {
    assert.ok(importsOf(sources.get('src/linux/ffi.ts')!).some((found) => found.specifier === 'koffi'));
    assert.ok(importsOf(sources.get('src/linux/run.ts')!).some((found) => found.specifier === 'node:child_process'));
  });
});

describe('the import scanner', () => {
  const kinds = (source: string): string[] => importsOf(source).map((found) => `${found.kind} ${found.specifier}`);

  it('finds every form', () => {
    assert.deepEqual(
      kinds(`
        import a, { type B, c } from './a.ts';
        import type { D } from "./d.ts";
        import { type E, type F } from './e.ts';
        import { type G, h } from './g.ts';
        import * as i from 'node:fs';
        import type from './named-type.ts';
        import {
          j, // import { no } from './in-comment.ts';
          k,
        } from './j.ts';
        export { l } from './l.ts';
        export type { M } from './m.ts';
        export * from './n.ts';
        export * as o from './o.ts';
      `),
      [
        'value ./a.ts',
        'type ./d.ts',
        'type ./e.ts',
        'value ./g.ts',
        'value node:fs',
        'value ./named-type.ts',
        'value ./j.ts',
        'value ./l.ts',
        'type ./m.ts',
        'value ./n.ts',
        'value ./o.ts',
      ],
    );
    assert.deepEqual(kinds(`import './side-effect.ts'; import"./close.ts"`), [
      'value ./side-effect.ts',
      'value ./close.ts',
    ]);
    assert.deepEqual(
      kinds("await import('./late.ts'); require(`x`); type T = typeof import('./t.ts'); const m = await import(name);"),
      ['dynamic ./late.ts', 'dynamic x', 'dynamic ./t.ts', 'computed name'],
    );
    assert.deepEqual(
      kinds(`new Worker(new URL('./worker.ts', import.meta.url)); new URL('./data.json', import.meta.url)`),
      ['url ./worker.ts'],
    );
  });

  it('is not led astray by strings, comments, templates and regular expressions', () => {
    assert.deepEqual(
      kinds(`
        // import x from './comment.ts'
        /* import y from './block.ts' */
        const s = "import z from './string.ts'";
        const quote = /['"\`/]/.test(s) ? 'it\\'s' : "\\"";
        const t = \`import \${\`nested \${quote}\` + '}'} from './template.ts'\`;
        const half = width / 2; // '
        export const list = Array.from('./not-an-import.ts');
        export function from() { return 'a' / 2 / 'b'; }
        import real from './real.ts';
      `),
      ['value ./real.ts'],
    );
  });
});

describe('the rules', () => {
  it('accept a tree that keeps them', () => {
    assert.deepEqual(
      check({
        'src/errors.ts': 'export class WeftError extends Error {}',
        'src/ip/ipv4.ts': "import { WeftError } from '../errors.ts';",
        'src/linux/ffi.ts': "import koffi from 'koffi';",
        'src/linux/run.ts': "import { spawn } from 'node:child_process';",
        'src/linux/run.test.ts': "import { fake } from '../../test/fakes/fake.ts'; import { run } from './run.ts';",
        'src/subnet/local/store.ts': "import { open } from '../../linux/ffi.ts';",
        'src/cmd/flanneld/main.ts':
          "import { open } from '../../linux/ffi.ts'; import type { A } from '../../ip/ipv4.ts';",
        'src/lab/agent.ts': "start(new URL('../cmd/flanneld/main.ts', import.meta.url))",
        'src/cmd/cni/main.ts': "import { A } from '../../errors.ts'; import { readFileSync } from 'node:fs';",
        'test/fakes/fake.ts': "import { A } from '../../src/ip/ipv4.ts'; import fc from 'fast-check';",
      }),
      [],
    );
  });

  it('refuse an import against the direction, also of a type, also through a worker', () => {
    refuses({ 'src/ip/a.ts': "import { b } from '../lease/b.ts';", 'src/lease/b.ts': '' }, /ip\/a.*nothing above it/);
    refuses(
      { 'src/lease/a.ts': "import type { B } from '../config/b.ts';", 'src/config/b.ts': '' },
      /lease may import ip only/,
    );
    refuses(
      { 'src/dataplane/a.ts': "new Worker(new URL('../cmd/b.ts', import.meta.url))", 'src/cmd/b.ts': '' },
      /dataplane may import/,
    );
    refuses({ 'src/errors.ts': "import { a } from './ip/a.ts';", 'src/ip/a.ts': '' }, /directly in src/);
    refuses({ 'src/lab/a.ts': "export { b } from '../cmd/b.ts'; const c = 1;", 'src/cmd/b.ts': '' }, /lab may import/);
  });

  it('refuse linux/ outside cmd, lab and the clients of the stores', () => {
    for (const folder of ['backend/udp', 'dataplane', 'desired', 'trafficmngr', 'subnet', 'health']) {
      refuses(
        {
          [`src/${folder}/a.ts`]: `import { b } from '${'../'.repeat(folder.split('/').length)}linux/b.ts';`,
          'src/linux/b.ts': '',
        },
        /src\/linux\/b\.ts: .* may import/,
      );
    }
    refuses(
      { 'src/subnet/kube/a.ts': "import { b } from '../etcd/b.ts';", 'src/subnet/etcd/b.ts': '' },
      /another store's client/,
    );
  });

  it('refuse to name one backend outside its folder', () => {
    const files = { 'src/backend/vxlan.ts': '', 'src/backend/registry.ts': '' };
    refuses(
      { ...files, 'src/agent/a.ts': "import { vxlan } from '../backend/vxlan.ts';" },
      /ask src\/backend\/registry\.ts/,
    );
    assert.deepEqual(check({ ...files, 'src/agent/a.ts': "import { b } from '../backend/registry.ts';" }), []);
  });

  it('refuse to compare a backend’s type outside its folder', () => {
    const files = (code: string) => ({ 'src/diagnosis/a.ts': code });
    refuses(files("const isDirect = own.attrs.backendType === 'host-gw';"), /compares a backend's type with host-gw/);
    refuses(files('if (config.backend.type !== "udp") return;'), /compares a backend's type with udp/);
    const allowed = ["const isNone = backendType === '';", "const isTunnel = link.kind === 'vxlan';"];
    assert.deepEqual(check({ 'src/backend/a.ts': "backendType === 'host-gw'", ...files(allowed.join('\n')) }), []);
  });

  it('refuse tests and benchmarks in the product, folders nobody placed, files that are not there', () => {
    refuses(
      { 'src/ip/a.ts': "import { b } from '../../test/fakes/b.ts';", 'test/fakes/b.ts': '' },
      /may not need tests/,
    );
    refuses({ 'src/ip/a.ts': "import { b } from './b.test.ts';", 'src/ip/b.test.ts': '' }, /may not need tests/);
    refuses({ 'src/news/a.ts': "import { b } from '../ip/b.ts';", 'src/ip/b.ts': '' }, /no line in mayImport/);
    refuses({ 'src/ip/a.ts': "import { b } from './gone.ts';" }, /does not exist/);
    refuses({ 'src/ip/a.ts': 'const b = await import(path);' }, /name the file/);
  });

  it('refuse packages and processes outside their place', () => {
    refuses({ 'src/linux/tun.ts': "import koffi from 'koffi';" }, /only src\/linux\/ffi\.ts may/);
    refuses({ 'test/netns/a.test.ts': "import koffi from 'koffi';" }, /only src\/linux\/ffi\.ts may/);
    refuses({ 'src/dataplane/a.ts': "const koffi = require('koffi');" }, /only src\/linux\/ffi\.ts may/);
    refuses({ 'src/subnet/etcd/a.ts': "import { load } from '@grpc/other/sub.js';" }, /no line in packageHomes/);
    for (const path of ['src/lab/a.ts', 'bench/a.ts', 'test/e2e/a.ts', 'src/ip/a.test.ts', 'src/cmd/cni/a.ts']) {
      refuses({ [path]: "import { spawn } from 'node:child_process';" }, /only src\/linux\/run\.ts may/);
    }
    refuses({ 'bench/a.ts': "import { exec } from 'child_process';" }, /only src\/linux\/run\.ts may/);
  });

  it('refuse a package that the CNI plugin would load, however far away', () => {
    const files = {
      'src/cmd/cni/main.ts': "import { a } from '../../log/a.ts';",
      'src/log/a.ts': "import { b } from './b.ts';",
      'src/log/b.ts': "import { pino } from 'pino';",
    };
    refuses(files, /CNI plugin loads pino: src\/cmd\/cni\/main\.ts → src\/log\/a\.ts → src\/log\/b\.ts/);
    assert.deepEqual(check({ ...files, 'src/log/a.ts': "import type { B } from './b.ts';" }), []);
  });

  it('refuse a cycle, also of types alone', () => {
    refuses(
      {
        'src/ip/a.ts': "import { b } from './b.ts';",
        'src/ip/b.ts': "import type { C } from './c.ts';",
        'src/ip/c.ts': "import { a } from './a.ts';",
      },
      /src\/ip\/a\.ts → src\/ip\/b\.ts → src\/ip\/c\.ts → src\/ip\/a\.ts/,
    );
  });

  it('refuse barrels, default exports, enums and other names of files', () => {
    refuses({ 'src/ip/index.ts': 'export const a = 1;' }, /no index files/);
    refuses({ 'src/ip/all.ts': "export * from './a.ts';\n", 'src/ip/a.ts': '' }, /barrel/);
    refuses({ 'src/ip/a.ts': 'export default 1;' }, /no default exports/);
    refuses({ 'src/ip/a.ts': 'const a = 1; export { a as default };' }, /no default exports/);
    refuses({ 'src/ip/a.ts': 'export const enum Colour { Red }' }, /no enums/);
    refuses({ 'src/ip/peerTable.ts': '' }, /kebab-case/);
    assert.deepEqual(check({ 'src/ip/a.ts': "// enum Colour { Red }, export default\nconst s = 'enum A {';" }), []);
  });

  it('refuse in the page what does not run in a browser, and all but types of what it reads', () => {
    const files = { 'src/ui/a.ts': '', 'src/ip/a.ts': '' };
    refuses({ ...files, 'web/src/b.tsx': "import { a } from '../../src/ui/a.ts';" }, /types of api, ui, lab only/);
    refuses({ ...files, 'web/src/b.tsx': "import type { A } from '../../src/ip/a.ts';" }, /types of api, ui, lab only/);
    refuses({ 'web/src/b.tsx': "import { readFileSync } from 'node:fs';" }, /runs in a browser/);
    refuses({ 'web/src/b.tsx': "import { pino } from 'pino';" }, /only src\/log\/ may/);
    refuses({ 'src/ui/b.ts': "import { render } from 'preact';" }, /only web\/ may/);
    assert.deepEqual(
      check({
        ...files,
        'web/src/b.tsx':
          "import type { A } from '../../src/ui/a.ts'; import { render } from 'preact'; import './style.css';",
        'web/src/b.test.ts': "import assert from 'node:assert/strict'; import { b } from './b.tsx';",
      }),
      [],
    );
  });

  it('are themselves without a cycle', () => {
    const visit = (folder: string, trail: readonly string[]): void => {
      assert.ok(!trail.includes(folder), `mayImport has a cycle: ${[...trail, folder].join(' → ')}`);
      for (const to of mayImport[folder] ?? []) if (to !== '*') visit(to, [...trail, folder]);
    };
    for (const folder of Object.keys(mayImport)) visit(folder, []);
  });
});
