import { createRequire } from 'node:module';
import { getAsset } from 'node:sea';
import { compileFunction } from 'node:vm';

/**
 * Evaluates a part of the single executable that is no program's text (PARTS of scripts/packaging/bundle.ts), once: the text of a
 * program is in the memory of each of its processes, whether they run it or not.
 */
export function loadPart(name: string): unknown {
  const part = { exports: {} };
  const wrapper = compileFunction(getAsset(`${name}.js`, 'utf8'), ['module', 'exports', 'require'], {
    filename: `${name}.js`,
  });
  wrapper(part, part.exports, createRequire(process.execPath));
  return part.exports;
}
