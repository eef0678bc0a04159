import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { backendKinds } from '../src/backend/registry.ts';
import { flanneldUsage } from '../src/config/flanneld-options.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const documents = globSync(['*.md', 'docs/*.md', 'deploy/**/*.md'], { cwd: root })
  .filter((path) => path !== 'CHANGELOG.md')
  .sort();

/** The lines of a document from one heading to the next of the same or a higher level. */
function section(text: string, heading: string): string {
  const level = /^#+/.exec(heading)![0].length;
  const from = text.indexOf(`\n${heading}\n`);
  assert.ok(from >= 0, `has the heading ${heading}`);
  const rest = text.slice(from + heading.length + 2);
  return rest.split(new RegExp(`^#{1,${level}} `, 'm'))[0]!;
}

/** Cells of the table rows whose first cell is code: `[name, …]`. */
function codeRows(text: string): string[][] {
  return [...text.matchAll(/^\| `([^`]+)` \|(.*)\|$/gm)].map(([, name, rest]) => [
    name!,
    ...rest!.split('|').map((cell) => cell.trim()),
  ]);
}

/** What `flanneld --help` says of each flag: its default, or an empty text. */
function flagDefaults(): Map<string, string> {
  const usage = [...flanneldUsage().matchAll(/^ {2}-(\S+).*\n {4}\t(.*)$/gm)];
  return new Map(usage.map(([, name, text]) => [name!, / \(default "?([^"]*?)"?\)$/.exec(text!)?.[1]?.trim() ?? '']));
}

describe('docs/CONFIGURATION.md', () => {
  const text = read('docs/CONFIGURATION.md');

  it('has each flag of the agent once, with the default that --help prints', () => {
    const rows = codeRows(section(text, '## Flags of the agent'));
    const defaults = flagDefaults();
    assert.ok(defaults.size > 40);
    assert.deepEqual(rows.map(([name]) => name).sort(), [...defaults.keys()].sort());
    for (const [name, cell] of rows) {
      const expected = defaults.get(name!)!;
      // A flag that is off or empty has no default in --help; a list's default may be said in words.
      const shown = (cell ?? '').replaceAll('`', '').trim();
      if (/^(etcd, or kube with |it is installed by other means)/.test(expected)) continue;
      if (expected !== '') assert.equal(shown, expected, name!);
      else assert.match(shown, /^(|0|false|the interface.*)$/, name!);
    }
  });

  it('has each key of each backend, and no other', () => {
    for (const { type, keys } of backendKinds()) {
      const rows = codeRows(section(text, `### ${type}`));
      assert.deepEqual(rows.map(([name]) => name).sort(), Object.keys(keys).sort(), type);
      for (const [name, values] of rows) {
        const spec = keys[name!]!;
        if (spec.kind === 'integer')
          assert.match(values!, new RegExp(`^${spec.min} to ${spec.max}\\b`), `${type} ${name}`);
        if (spec.kind === 'boolean') assert.equal(values, 'boolean', `${type} ${name}`);
      }
    }
  });

  it('has each key beside the Backend', () => {
    const names = /const FIELD_NAMES = \[([^\]]*)\]/.exec(read('src/config/net-conf.ts'))![1]!;
    const keys = [...names.matchAll(/'(\w+)'/g)].map(([, name]) => name!);
    assert.ok(keys.length >= 12);
    assert.deepEqual(
      codeRows(section(text, '## net-conf.json'))
        .map(([name]) => name)
        .sort(),
      keys.toSorted(),
    );
  });
});

/** Options of each verb of `weft`, as its source declares them, or one beside it that it imports. */
function verbs(): Map<string, Set<string>> {
  const known = new Map<string, Set<string>>();
  const isVerb = (source: string): boolean => /new Command\('[a-z-]+'\)/.test(source);
  const declared = (source: string): string[] => [
    ...[...source.matchAll(/[oO]ption\(\s*'([^']*)'/g)].flatMap(([, flags]) =>
      [...flags!.matchAll(/(?<![\w-])--?[a-zA-Z][\w-]*/g)].map(([flag]) => flag),
    ),
    ...[...source.matchAll(/from '\.\/([\w-]+\.ts)'/g)]
      .map(([, name]) => read(`src/cmd/weft/${name}`))
      .filter((beside) => !isVerb(beside))
      .flatMap(declared),
  ];
  for (const path of globSync('src/cmd/weft/*.ts', { cwd: root })) {
    if (path.endsWith('.test.ts')) continue;
    const source = read(path);
    const name = /new Command\('([a-z-]+)'\)/.exec(source)?.[1];
    if (name === undefined || name === 'weft') continue;
    known.set(name, new Set([...declared(source), '--help']));
  }
  return known;
}

/** Command lines of a document: of code blocks of a shell, continuations joined, and code spans. */
function commandLines(text: string): string[] {
  const blocks = [...text.matchAll(/^ *```(?:sh|console)\n(.*?)^ *```/gms)].map(([, block]) => block!);
  const spans = [...text.replaceAll(/^ *```.*?^ *```/gms, '').matchAll(/`([^`\n]+)`/g)].map(([, span]) => span!);
  return [...blocks.flatMap((block) => block.replaceAll(/\\\n/g, ' ').split('\n')), ...spans].flatMap((line) =>
    line.split(/\s*(?:&&|\|\||[|;#])\s*/),
  );
}

describe('command lines in documents', () => {
  const known = verbs();
  const flags = new Set([...flagDefaults().keys()].map((name) => `--${name}`));

  for (const path of documents) {
    it(`of ${path} name verbs and options that exist`, () => {
      const wrong: string[] = [];
      for (const line of commandLines(read(path))) {
        const weft = /(?:^|-- |\$ )(?:bin\/)?weft ([a-z][a-z-]*)(?=\s|$)(.*)$/.exec(line);
        const verb = weft?.[1] === 'flanneld' || weft?.[1] === 'help' ? undefined : weft?.[1];
        const given = (rest: string): string[] => [...rest.matchAll(/(?<=\s)--[a-z][\w-]*/g)].map(([flag]) => flag);
        if (verb !== undefined) {
          const options = known.get(verb);
          if (options === undefined) wrong.push(`no verb: ${line}`);
          else for (const flag of given(weft![2]!)) if (!options.has(flag)) wrong.push(`no option ${flag}: ${line}`);
        }
        const agent = /^(?:\$ )?(?:bin\/)?flanneld( .*)$/.exec(line);
        if (agent !== null) {
          for (const flag of given(agent[1]!)) {
            if (!flags.has(flag) && flag !== '--help') wrong.push(`no flag ${flag}: ${line}`);
          }
        }
      }
      assert.deepEqual(wrong, []);
    });
  }

  it('are found at all', () => {
    const all = documents.flatMap((path) => commandLines(read(path)));
    for (const verb of ['doctor', 'cleanup', 'tunnel', 'lab']) {
      assert.ok(
        all.some((line) => new RegExp(`(?:^|[ /])weft ${verb}\\b`).test(line)),
        verb,
      );
    }
  });
});

/** Texts of the sources: string parts that are put together over several lines are one text. */
function sourceTexts(): string {
  const sources = globSync(['src/**/*.ts', 'deploy/**/*.{yml,yaml,json}'], { cwd: root })
    .filter((path) => !path.endsWith('.test.ts'))
    .map(read)
    .join('\n');
  return sources.replaceAll(/['"`] \+\s*['"`]/g, '').replaceAll(/\\(['"`])/g, '$1');
}

/** Outputs of kubelet, CNI plugins and tools: not ours to compare. */
const OUTPUTS_OF_OTHERS = [
  /^failed to find plugin /,
  /^cni plugin not initialized$/,
  /^cni0 already has an IP address/,
  /^ping /,
];

/** What must stand in the sources for a quoted output to be true; what the programs fill in does not count. */
function partsOf(quote: string): string[] {
  const check = /^[✔✖!] ([a-z-]+)(?: …)?:?(.*)$/.exec(quote);
  if (check !== null) return [`'${check[1]}'`, ...partsOf(check[2]!)];
  const metric = /^(weft_\w+)(?:\{.*\})?(?: \d+)?$/.exec(quote)?.[1];
  if (metric !== undefined) return [`'${metric}'`];
  // The node's condition has the code of the error in another form.
  const reason = /^Flannel([A-Z]\w+)$/.exec(quote)?.[1];
  if (reason !== undefined) return [`'WEFT_${reason.replaceAll(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()}'`];
  return quote
    .split(/…|"[^"]*"|\([a-z-]+\)|\b[\d.]+\b|\beth0\b|\bwg\b/)
    .map((part) => part.trim())
    .filter((part) => part.length > 7);
}

describe('docs/TROUBLESHOOTING.md', () => {
  const text = read('docs/TROUBLESHOOTING.md');
  const sources = sourceTexts();

  it('quotes outputs that the programs have', () => {
    const quotes = [...text.matchAll(/^\| (.*?) \| .*? \| .*? \|$/gm)]
      .flatMap(([, cell]) => [...cell!.matchAll(/`([^`]+)`/g)].map(([, quote]) => quote!))
      .filter((quote) => !OUTPUTS_OF_OTHERS.some((other) => other.test(quote)));
    assert.ok(quotes.length > 40, `${quotes.length} quotes`);
    const unknown = quotes.flatMap((quote) =>
      partsOf(quote)
        .filter((part) => !sources.includes(part))
        .map((part) => `${quote} → ${part}`),
    );
    assert.deepEqual(unknown, []);
  });

  it('names reasons of drops that exist', () => {
    const reasons = [...text.matchAll(/`[^`]*\(([a-z]+(?:-[a-z]+)+)\)[^`]*`/g)].map(([, reason]) => reason!);
    assert.ok(reasons.length > 2);
    assert.deepEqual(
      reasons.filter((reason) => !sources.includes(`'${reason}'`)),
      [],
    );
  });
});
