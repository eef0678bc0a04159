import { getAsset, getRawAsset } from 'node:sea';

/** Positions in the program's one file and where they come from, sorted by the former (scripts/packaging/source-table.ts). */
export interface SourceTable {
  readonly files: readonly string[];
  /** Groups of four: line and column in the program, index in `files`, line in that file. */
  readonly entries: Int32Array;
}

const ENTRY_WORDS = 4;

/** Where the code at this position was written: `src/agent/agent.ts:120`; undefined for a library's. */
export function sourceOf({ files, entries }: SourceTable, line: number, column: number): string | undefined {
  let low = 0;
  let high = entries.length / ENTRY_WORDS;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = middle * ENTRY_WORDS;
    const isAfter = entries[at]! > line || (entries[at] === line && entries[at + 1]! > column);
    if (isAfter) high = middle;
    else low = middle + 1;
  }
  const at = (low - 1) * ENTRY_WORDS;
  const file = files[entries[at + 2] ?? -1];
  return file === undefined ? undefined : `${file}:${entries[at + 3]}`;
}

/**
 * Makes stack traces, and with them the `file:line` of log lines and what -vmodule goes by, speak of the sources. The
 * table is read when the first stack is looked at, which the CNI plugin never does.
 */
export function useSourcePositions(): void {
  let table: SourceTable | undefined;
  Error.prepareStackTrace = (error, frames) => {
    table ??= {
      files: JSON.parse(getAsset('source-files.json', 'utf8')) as string[],
      // Where it lies in the executable, not a copy of it.
      entries: new Int32Array(getRawAsset('source-positions')),
    };
    const known = table;
    const lines = frames.map((frame) => {
      const text = String(frame);
      const written = text.replace(/[^\s(]*\bprogram\.js:(\d+):(\d+)/, (whole, line: string, column: string) => {
        const source = sourceOf(known, Number(line), Number(column));
        // The column is the program's: it only keeps the form.
        return source === undefined ? whole : `${source}:${column}`;
      });
      return `\n    at ${written}`;
    });
    return `${headOf(error)}${lines.join('')}`;
  };
}

/** As V8 begins a stack. */
function headOf(error: Error): string {
  try {
    return Error.prototype.toString.call(error);
  } catch {
    return 'Error';
  }
}
