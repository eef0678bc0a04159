/** How one file refers to another; `url` is a file handed to a worker or a child process: `new URL('./x.ts', import.meta.url)`. */
export type ImportKind = 'value' | 'type' | 'dynamic' | 'url' | 'computed';

export interface Import {
  readonly kind: ImportKind;
  /** As written: `./x.ts`, `node:fs`, `koffi`. For `computed`, the expression's first characters. */
  readonly specifier: string;
}

interface Masked {
  /** The source without comments; every string and template is `"n"`, n its index in `strings`; regular expressions are `0`. */
  readonly code: string;
  readonly strings: readonly string[];
}

const regexMayFollow = /(?:^|[([{}=,:;!&|?+\-*%~^<>]|\b(?:return|typeof|case|of|in|do|else|void|yield|await|throw))$/;

/**
 * Takes a TypeScript source apart just far enough that the words left over are code. A parser would be surer, but none
 * is a dependency of ours; the risk is a regular expression taken for a division, which the heuristic of highlighters
 * avoids (a slash after an operator or keyword begins one), and a mistake shows as an import that is missing here and
 * found by tsc.
 */
export function mask(source: string): Masked {
  const strings: string[] = [];
  let code = '';
  let at = 0;
  /** Reads a template from its back-tick to the matching one; nested templates in `${}` are part of its text. */
  const skipTemplate = (from: number): number => {
    let i = from + 1;
    while (i < source.length && source[i] !== '`') {
      if (source[i] === '\\') i += 2;
      else if (source.startsWith('${', i)) {
        let depth = 1;
        i += 2;
        while (i < source.length && depth > 0) {
          if (source[i] === '`') i = skipTemplate(i);
          else {
            if (source[i] === '{') depth += 1;
            if (source[i] === '}') depth -= 1;
            i += 1;
          }
        }
      } else i += 1;
    }
    return i + 1;
  };
  const put = (text: string): void => {
    code += `"${strings.length}"`;
    strings.push(text);
  };
  while (at < source.length) {
    const c = source[at]!;
    if (source.startsWith('//', at)) {
      const end = source.indexOf('\n', at);
      at = end === -1 ? source.length : end;
    } else if (source.startsWith('/*', at)) {
      const end = source.indexOf('*/', at + 2);
      at = end === -1 ? source.length : end + 2;
      code += ' ';
    } else if (c === '"' || c === "'") {
      let end = at + 1;
      while (end < source.length && source[end] !== c && source[end] !== '\n') end += source[end] === '\\' ? 2 : 1;
      put(source.slice(at + 1, end));
      at = end + 1;
    } else if (c === '`') {
      const end = skipTemplate(at);
      put(source.slice(at + 1, end - 1));
      at = end;
    } else if (c === '/' && regexMayFollow.test(code.trimEnd())) {
      let end = at + 1;
      let inClass = false;
      while (end < source.length && source[end] !== '\n' && (inClass || source[end] !== '/')) {
        if (source[end] === '\\') end += 1;
        else if (source[end] === '[') inClass = true;
        else if (source[end] === ']') inClass = false;
        end += 1;
      }
      code += '0';
      at = end + 1;
    } else {
      code += c;
      at += 1;
    }
  }
  return { code, strings };
}

/** All-`type` braces, as in `import { type A, type B } from`, vanish at run time just as `import type` does. */
function isTypeOnly(clause: string): boolean {
  // `import type from './x.ts'` imports a value that is called so.
  if (/^\s*type\b(?!\s*(?:,|$))/.test(clause)) return true;
  const braces = /^\s*\{([^}]*)\}\s*$/.exec(clause)?.[1];
  if (braces === undefined) return false;
  const names = braces.split(',').filter((name) => name.trim() !== '');
  return names.length > 0 && names.every((name) => /^\s*type\s/.test(name));
}

/** What a source imports, re-exports, requires or starts, in order of appearance within each form. */
export function importsOf(source: string): Import[] {
  const { code, strings } = mask(source);
  const text = (index: string | undefined): string => strings[Number(index)] ?? '';
  const found: Import[] = [];
  for (const match of code.matchAll(/\b(?:import|export)\b([^;"'()=]*?)\bfrom\s*"(\d+)"/g)) {
    found.push({ kind: isTypeOnly(match[1]!) ? 'type' : 'value', specifier: text(match[2]) });
  }
  for (const match of code.matchAll(/(?<![.\w])import\s*"(\d+)"/g)) {
    found.push({ kind: 'value', specifier: text(match[1]) });
  }
  for (const match of code.matchAll(/(?<![.\w])(?:import|require)\s*\(\s*(?:"(\d+)"\s*[,)]|([^)]{0,40}))/g)) {
    found.push(
      match[1] === undefined
        ? { kind: 'computed', specifier: match[2]!.trim() }
        : { kind: 'dynamic', specifier: text(match[1]) },
    );
  }
  for (const match of code.matchAll(/\bnew\s+URL\s*\(\s*"(\d+)"\s*,\s*import\s*\.\s*meta\s*\.\s*url/g)) {
    // AssemblyScript is compiled by itself; other files are data.
    if (/(?<!\.as)\.ts$/.test(text(match[1]))) found.push({ kind: 'url', specifier: text(match[1]) });
  }
  for (const match of code.matchAll(/\bimport\s*\.\s*meta\s*\.\s*resolve\s*\(\s*"(\d+)"/g)) {
    found.push({ kind: 'url', specifier: text(match[1]) });
  }
  return found;
}
