import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { build } from 'esbuild';
import fc from 'fast-check';
import { sourceTable } from '../scripts/packaging/source-table.ts';
import { type SourceTable, sourceOf } from '../src/cmd/single-executable/source-positions.ts';

const root = join(import.meta.dirname, '..');

it('positions in a program are found in the sources, and those of libraries are not', async () => {
  const { outputFiles } = await build({
    stdin: {
      contents:
        "import './lib/library.js';\n\nfunction here(): never {\n  throw new Error('first');\n}\nhere();\nthrow new Error('second');\n",
      loader: 'ts',
      sourcefile: 'src/program.ts',
      resolveDir: root,
    },
    absWorkingDir: root,
    bundle: true,
    write: false,
    outfile: 'program.js',
    sourcemap: 'external',
    minifyWhitespace: true,
    plugins: [
      {
        name: 'library',
        setup(context) {
          context.onResolve({ filter: /library/ }, () => ({ path: 'library.js', namespace: 'lib' }));
          context.onLoad({ filter: /.*/, namespace: 'lib' }, () => ({ contents: "console.log('library');" }));
        },
      },
    ],
  });
  const [map, program] = outputFiles.toSorted((a, b) => b.path.length - a.path.length);
  const table = sourceTable(map!.text, (path) => path.startsWith('src/'));
  const lines = program!.text.split('\n');
  const positionOf = (text: string): [number, number] => {
    const line = lines.findIndex((candidate) => candidate.includes(text));
    return [line + 1, lines[line]!.indexOf(text) + 1];
  };
  assert.equal(sourceOf(table, ...positionOf('"first"')), 'src/program.ts:4');
  assert.equal(sourceOf(table, ...positionOf('"second"')), 'src/program.ts:7');
  assert.equal(sourceOf(table, ...positionOf('"library"')), undefined);
  assert.equal(sourceOf(table, 1, 0), undefined);
});

it('the last entry at or before a position counts', () => {
  const position = fc.record({ line: fc.integer({ min: 1, max: 20 }), column: fc.integer({ min: 1, max: 20 }) });
  fc.assert(
    fc.property(
      fc.uniqueArray(position, { selector: ({ line, column }) => `${line}:${column}` }),
      position,
      (starts, at) => {
        const key = ({ line, column }: typeof at): number => line * 100 + column;
        const sorted = starts.toSorted((a, b) => key(a) - key(b));
        const entries = Int32Array.from(sorted.flatMap(({ line, column }, index) => [line, column, 0, index]));
        const table: SourceTable = { files: ['src/x.ts'], entries };
        const expected = sorted.findLastIndex((start) => key(start) <= key(at));
        assert.equal(sourceOf(table, at.line, at.column), expected === -1 ? undefined : `src/x.ts:${expected}`);
      },
    ),
  );
});
