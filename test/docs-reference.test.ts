import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { loadAll } from 'js-yaml';
import { commandReference } from '../scripts/command-reference.ts';
import { backendKind, backendKinds } from '../src/backend/registry.ts';
import { ProcessLife } from '../src/cmd/process-life.ts';
import { weftProgram } from '../src/cmd/weft/program.ts';
import { flanneldUsage } from '../src/config/flanneld-flags.ts';
import { inspectNetConf } from '../src/config/net-conf.ts';
import { sectionOf } from './markdown.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const documents = globSync(['*.md', 'docs/*.md', 'deploy/**/*.md'], { cwd: root })
  .filter((path) => path !== 'CHANGELOG.md')
  .sort();

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

describe('docs/COMMANDS.md', () => {
  it('is what the commands say of themselves: scripts/run.sh scripts/command-reference.ts', () => {
    assert.equal(read('docs/COMMANDS.md'), commandReference());
  });
});

describe('docs/CONFIGURATION.md', () => {
  const text = read('docs/CONFIGURATION.md');

  it('has each flag of the agent once, with the default that --help prints', () => {
    const rows = codeRows(sectionOf(text, '## Flags of the agent'));
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
      const rows = codeRows(sectionOf(text, `### ${type}`));
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
      codeRows(sectionOf(text, '## net-conf.json'))
        .map(([name]) => name)
        .sort(),
      keys.toSorted(),
    );
  });
});

describe('docs/CONFIGURATION.md, beside net-conf.json and flags', () => {
  const text = read('docs/CONFIGURATION.md');

  it('has each key of the plugin flannel that is not for the runtime to set, and the cni-conf.json of the manifest', () => {
    const part = sectionOf(text, '## cni-conf.json');
    const [reading] = /^function readConfig\(.*?^}/ms.exec(read('src/cni/plugin-config.ts'))!;
    const keys = [...reading.matchAll(/\bmembers\.(?:string|object)\('(\w+)'\)/g)].map(([, key]) => key!);
    const ofRuntime = ['cniVersion', 'name', 'runtimeConfig'];
    assert.deepEqual([...codeRows(part).map(([name]) => name!), ...ofRuntime].sort(), keys.sort());
    const [, example] = /^```json\n(.*?)^```/ms.exec(part)!;
    const objects = loadAll(read('deploy/kube-flannel.yml')) as { kind: string; data?: Record<string, string> }[];
    const { data } = objects.find(({ kind }) => kind === 'ConfigMap')!;
    assert.deepEqual(JSON.parse(example!), JSON.parse(data!['cni-conf.json']!));
  });

  it('has each variable of the environment that the agent reads, and the one of its unit', () => {
    const part = sectionOf(text, '## Variables of the environment');
    const variables = [...read('src/config/flanneld-options.ts').matchAll(/#env\.([A-Z_]+)\b/g)].map(
      ([, name]) => name!,
    );
    assert.ok(variables.length >= 6);
    const [, ofUnit] = /^ExecStart=.* \$(\w+)$/m.exec(read('deploy/systemd/weft-flanneld.service'))!;
    assert.deepEqual(
      [...variables, ofUnit!].filter((name) => !part.includes(`\`${name}\``)),
      [],
    );
  });
});

describe('examples of net-conf.json in documents', () => {
  it('are taken without a problem or a warning, and docs/BACKENDS.md has a section with one of each backend', () => {
    const sections: string[] = [];
    for (const path of ['docs/BACKENDS.md', 'docs/CONFIGURATION.md', 'README.md', 'docs/INSTALL.md']) {
      for (const [, example] of read(path).matchAll(/^```json\n(.*?)^```/gms)) {
        if (!example!.includes('"Network"')) continue;
        const found = inspectNetConf(example!, { validation: 'full', backends: backendKind });
        assert.deepEqual([found.problems, found.ignoredKeys, found.warnings], [[], [], []], example!);
        if (path === 'docs/BACKENDS.md') sections.push(found.config!.backend.type);
      }
    }
    // Where a secret is needed there is no example to copy.
    const withExample = backendKinds().filter(({ type }) => type !== 'ipsec');
    assert.deepEqual(sections.sort(), withExample.map(({ type }) => type).sort());
    for (const { type } of backendKinds()) sectionOf(read('docs/BACKENDS.md'), `## ${type}`);
  });
});

/** Options of each command of `weft`, those of its own commands among them. */
function verbs(): Map<string, Set<string>> {
  const optionsOf = (command: Command): string[] => [
    ...command.options.flatMap(({ short, long }) => [short, long]).filter((flag) => flag != null),
    ...command.commands.flatMap(optionsOf),
  ];
  const { commands } = weftProgram(new ProcessLife('weft', () => {}));
  return new Map(commands.map((command) => [command.name(), new Set([...optionsOf(command), '--help'])]));
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
  /^(?:ImagePullBackOff|ErrImagePull|ErrImageNeverPull)$/,
  /^(?:unable to apply caps|operation not permitted|forbidden: violates PodSecurity)$/,
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
