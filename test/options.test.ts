import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { flanneldUsage } from '../src/config/flanneld-flags.ts';
import { parseFlanneldOptions } from '../src/config/flanneld-options.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const sources = (pattern: string): string[] =>
  globSync(pattern, { cwd: root }).filter((path) => !path.endsWith('.test.ts'));

const DECLARED_IN = 'src/config/flanneld-options.ts';
const SHOWN_IN = 'src/config/shown-flanneld-options.ts';

/** Whether the text reads that member of some object: `x.name`, or by taking the object apart. */
function reads(text: string, name: string): boolean {
  return new RegExp(`\\.${name}\\b|[{,]\\s*${name}\\b(?:[^{}]*)\\}\\s*(?:=|:)`).test(text);
}

describe('options', () => {
  it('of the agent are each read by somebody', () => {
    const parsed = parseFlanneldOptions([], {});
    assert.ok(parsed.kind === 'run');
    const readers = sources('src/**/*.ts')
      .filter((path) => path !== DECLARED_IN && path !== SHOWN_IN && read(path).includes('FlanneldOptions'))
      .concat('src/cmd/flanneld/main.ts')
      .map(read);
    assert.ok(readers.length > 3);
    const unread = Object.keys(parsed.options).filter((name) => !readers.some((text) => reads(text, name)));
    assert.deepEqual(unread, []);
  });

  it('of the agent come each from a flag or a variable, and every flag leads to one', () => {
    const reading = read(DECLARED_IN);
    const names = [...flanneldUsage().matchAll(/^ {2}-(\S+)/gm)].map((match) => match[1]!);
    assert.ok(names.length > 40);
    const unread = names.filter(
      (name) => name !== 'version' && !new RegExp(`'${name}'|flags\\.${name}\\b`).test(reading),
    );
    assert.deepEqual(unread, []);
  });

  it('of the commands are each read by the command, or by the checks of doctor', () => {
    const unread: string[] = [];
    const checks = sources('src/doctor/*.ts').concat('src/cmd/weft/doctor-host.ts').map(read);
    const askers = ['cluster', 'lists', 'status', 'events', 'top'].map((name) => read(`src/cmd/weft/${name}.ts`));
    let declared = 0;
    for (const path of sources('src/cmd/weft/*.ts')) {
      const text = read(path);
      for (const [, short, long] of text.matchAll(/[oO]ption\(\s*'(?:-(\w) [^']*|--([a-z-]+)[^']*)'/g)) {
        const name = short ?? long!.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
        declared++;
        const readers = /\/(?:doctor|test)\.ts$/.test(path) ? [text, ...checks] : [text];
        // Shared by all that ask an agent.
        if (path.endsWith('/agent-target.ts')) readers.push(...askers);
        if (!readers.some((reader) => reads(reader, name))) unread.push(`${path}: ${name}`);
      }
    }
    assert.ok(declared > 20, String(declared));
    assert.deepEqual(unread, []);
  });
});
