import type { SourceTable } from '../../src/cmd/single-executable/source-positions.ts';

interface SourceMap {
  readonly sources: readonly string[];
  readonly mappings: string;
}

const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/**
 * What a source map (ECMA-426) says of the files that `isOurs`, thinned out to where another line begins: a tenth of
 * the map, and looked up without parsing. Where code of other files begins there is an entry without a file.
 */
export function sourceTable(json: string, isOurs: (path: string) => boolean): SourceTable {
  const { sources, mappings } = JSON.parse(json) as SourceMap;
  const paths = sources.map((path) => path.replace(/^(\.\.\/)+/, ''));
  const files = paths.filter(isOurs);
  const indices = paths.map((path) => files.indexOf(path));
  const entries: number[] = [];
  let [source, sourceLine] = [0, 0];
  let last = '';
  for (const [line, group] of mappings.split(';').entries()) {
    let column = 0;
    for (const segment of group.split(',')) {
      const [columnBy = 0, sourceBy, lineBy = 0] = decode(segment);
      column += columnBy;
      if (sourceBy === undefined) continue;
      source += sourceBy;
      sourceLine += lineBy;
      const file = indices[source]!;
      const here = file === -1 ? '' : `${file}:${sourceLine}`;
      if (here === last) continue;
      last = here;
      // Stacks count lines and columns from 1.
      entries.push(line + 1, column + 1, file, sourceLine + 1);
    }
  }
  return { files, entries: Int32Array.from(entries) };
}

/** Base64 VLQ: six bits a character, of which the highest says that more follow; the lowest of the number is its sign. */
function decode(segment: string): number[] {
  const values: number[] = [];
  let [value, shift] = [0, 0];
  for (const character of segment) {
    const digit = BASE64.indexOf(character);
    value += (digit & 31) << shift;
    if ((digit & 32) !== 0) shift += 5;
    else {
      values.push((value & 1) === 0 ? value >> 1 : -(value >> 1));
      [value, shift] = [0, 0];
    }
  }
  return values;
}
