import assert from 'node:assert/strict';
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { backendKinds } from '../src/backend/registry.ts';
import { anchorsOf, prose } from './markdown.ts';
import { alertRules } from './monitoring.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/** What the union ErrorCode lists, in its order. */
function errorCodes(source: string): string[] {
  const union = /export type ErrorCode =([^;]*);/.exec(source)?.[1];
  assert.ok(union !== undefined, 'src/errors.ts has the union ErrorCode');
  return [...union.matchAll(/'(WEFT_[A-Z0-9_]+)'/g)].map((match) => match[1]!);
}

describe('docs/ERRORS.md', () => {
  const codes = errorCodes(read('src/errors.ts'));
  const rows = read('docs/ERRORS.md')
    .split('\n')
    .map((line) => /^\| <a id="(WEFT_[A-Z0-9_]+)"><\/a>`\1` \| (.+) \| (.+) \|$/.exec(line))
    .filter((match) => match !== null);

  it('has one line for each code of src/errors.ts, and no other', () => {
    assert.ok(codes.length > 20);
    assert.deepEqual(rows.map((row) => row[1]).sort(), codes.toSorted());
  });

  it('says for each what happened and what to do', () => {
    for (const [, code, meaning, remedy] of rows) {
      assert.ok(meaning!.length > 20 && remedy!.length > 10, `${code}: a sentence each`);
    }
  });

  it('lists no code that nothing reports', () => {
    const sources = globSync('src/**/*.ts', { cwd: root, exclude: (path) => path.endsWith('.test.ts') })
      .filter((path) => path !== 'src/errors.ts')
      .map(read)
      .join('\n');
    assert.deepEqual(
      codes.filter((code) => !sources.includes(`'${code}'`)),
      [],
    );
  });
});

describe('ARCHITECTURE.md', () => {
  it('has each directory of src in its table, and no other', () => {
    const directories = readdirSync(join(root, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
    const firstCells = [...read('ARCHITECTURE.md').matchAll(/^\| (`src\/[^|]*) \|/gm)].map(([, cell]) => cell!);
    const listed = firstCells.flatMap((cell) => [...cell.matchAll(/`src\/([a-z-]+)\/`/g)].map(([, name]) => name));
    assert.deepEqual(listed.sort(), directories.map(({ name }) => name).sort());
  });
});

describe('docs/CLI.md', () => {
  it('lists the reasons of the events of a Node, and no others', () => {
    const reasons = [...read('src/agent/node-events.ts').matchAll(/reason: '(\w+)'/g)].map(([, reason]) => reason);
    const listed = [...read('docs/CLI.md').matchAll(/`(Flannel[A-Z]\w+)`/g)].map(([, reason]) => reason);
    assert.ok(reasons.length > 10);
    assert.deepEqual(listed.sort(), reasons.sort());
  });
});

/** Titles of the tests of a file, `${…}` as `…`: whatever stands first in a call that describes or runs a test. */
function testTitles(source: string): string[] {
  const calls = source.matchAll(/\b(?:it|describe|\w*[tT]est)\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g);
  return Array.from(calls, ([, , title]) => title!.replaceAll(/\$\{[^}]*\}/g, '…').replaceAll(/\\(.)/g, '$1'));
}

/** Rows of tables of three columns: what flannel does, what weft does, tests that prove it. */
function tableRows(path: string): string[][] {
  return read(path)
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) =>
      line
        .slice(1, -1)
        .split(/(?<!\\)\|/)
        .map((cell) => cell.trim()),
    )
    .filter(([first]) => first !== 'flannel');
}

/** Proofs that name no test, and rows that have none although something is claimed. */
function wrongProofs(rows: readonly string[][]): string[] {
  const titles = new Map<string, string[]>();
  const wrong: string[] = [];
  for (const [behaviour, verdict, proof] of rows) {
    if (proof === '—') {
      if (!verdict!.startsWith('not applicable')) wrong.push(`no proof: ${behaviour}`);
      continue;
    }
    for (const part of proof!.split('<br>')) {
      const [, path, title] = /^`([^`]+)` (.+)$/.exec(part) ?? [];
      if (path === undefined || title === undefined || !existsSync(join(root, path))) {
        wrong.push(`no such file: ${part}`);
        continue;
      }
      if (!titles.has(path)) titles.set(path, testTitles(read(path)));
      if (!titles.get(path)!.includes(title)) wrong.push(`no such test: ${part}`);
    }
  }
  return wrong;
}

describe('docs/COMPATIBILITY.md', () => {
  const rows = tableRows('docs/COMPATIBILITY.md');

  it('says of each behaviour of flannel: same, better and why, or not applicable and why', () => {
    assert.ok(rows.length > 100);
    for (const row of rows) {
      assert.equal(row.length, 3, row.join(' | '));
      assert.match(row[1]!, /^(same\b|better: .{5}|not applicable: .{10})/, row[0]!);
    }
    const behaviours = rows.map(([behaviour]) => behaviour);
    assert.deepEqual(
      behaviours.filter((behaviour, i) => behaviours.indexOf(behaviour) !== i),
      [],
    );
  });

  it('names for each a test that exists', () => assert.deepEqual(wrongProofs(rows), []));
});

describe('tests that lean on a row of docs/COMPATIBILITY.md', () => {
  it('name rows that exist', () => {
    const table = read('docs/COMPATIBILITY.md');
    const named = [...read('test/e2e/golden-hosts.ts').matchAll(/^ +row: '([^']+)'/gm)].map((match) => match[1]!);
    assert.ok(named.length >= 4);
    assert.deepEqual(
      named.filter((row) => !table.includes(`\n| ${row}`)),
      [],
    );
  });
});

describe('docs/BACKENDS.md', () => {
  const tables = tableRows('docs/BACKENDS.md');
  const rows = tables.filter(([first]) => /^[\w-]+, /.test(first!));
  const stores = tables.filter(([, second]) => /^(?:(?:local|etcd|Kubernetes)(?:, |$))+$/.test(second ?? ''));

  it('has a row for each kind of rules and each family of every backend it names, and for those that carry IPv6', () => {
    const cells = ['iptables', 'nftables'].flatMap((rules) =>
      ['IPv4', 'IPv6', 'dual stack'].map((stack) => `${rules}, ${stack}`),
    );
    const named = [...new Set(rows.map(([cell]) => cell!.split(', ', 1)[0]!))];
    assert.deepEqual(
      rows.map(([cell]) => cell),
      named.flatMap((backend) => cells.map((cell) => `${backend}, ${cell}`)),
    );
    for (const { type, families } of backendKinds()) {
      if (families.includes('ipv6')) assert(named.includes(type), type);
    }
  });

  it('says of each backend in those rows with which stores it was tried, and has a test for each', () => {
    const named = new Set(rows.map(([cell]) => cell!.split(', ', 1)[0]!));
    assert.deepEqual(stores.map(([backend]) => backend).toSorted(), [...named].toSorted());
    for (const [backend, list, tests] of stores)
      assert.equal(tests!.split('<br>').length, list!.split(', ').length, backend!);
  });

  it('names for each a test that exists', () => assert.deepEqual(wrongProofs([...rows, ...stores]), []));
});

describe('SECURITY.md', () => {
  const rows = tableRows('SECURITY.md').filter(([first]) => first !== 'attack');

  it('has a row for each advisory of this field once, with what happens', () => {
    assert.ok(rows.length >= 24);
    const ids = rows.flatMap(([attack]) => attack!.match(/\b(?:CVE-\d{4}-\d{4,}|GO-\d{4}-\d{4,})\b/g) ?? []);
    assert.ok(ids.length >= 33, `${ids.length} advisories`);
    assert.equal(new Set(ids).size, ids.length);
    for (const row of rows) {
      assert.equal(row.length, 3, row.join(' | '));
      assert.match(row[0]!, /^(?:CVE|GO)-\d/);
      assert.match(row[1]!, /^.{20}/);
    }
  });

  it('names for each a test that exists', () => assert.deepEqual(wrongProofs(rows), []));
});

describe('docs/E2E.md', () => {
  const rows = tableRows('docs/E2E.md');

  it("has a line for each of flannel's cases, and names a test that exists", () => {
    assert.ok(rows.length >= 15);
    for (const row of rows) assert.match(row[1]!, /^(same|more)\b|^not applicable: .{10}/, row[0]!);
    assert.deepEqual(wrongProofs(rows), []);
  });
});

/** Links of a document that lead nowhere: files that do not exist, headings that are not there. */
function deadLinks(path: string): string[] {
  const dead: string[] = [];
  for (const [, target] of prose(read(path)).matchAll(/\]\(([^)\s]+)(?:\s+"[^"]*")?\)/g)) {
    if (/^[a-z]+:/.test(target!)) continue;
    const [file, anchor] = target!.split('#');
    const linked = file === '' ? path : join(dirname(path), file!);
    if (!existsSync(join(root, linked))) dead.push(`${path} → ${target}`);
    else if (anchor !== undefined && linked.endsWith('.md')) {
      if (!anchorsOf(read(linked)).includes(anchor)) dead.push(`${path} → ${target}`);
    }
  }
  return dead;
}

describe('documents', () => {
  const documents = globSync(['*.md', 'docs/**/*.md', 'bench/*.md', 'deploy/**/*.md'], { cwd: root }).sort();

  it('link to files and headings that exist', () => {
    for (const expected of ['README.md', 'ARCHITECTURE.md', 'CHANGELOG.md', 'SECURITY.md', 'CONTRIBUTING.md']) {
      assert.ok(documents.includes(expected), expected);
    }
    assert.deepEqual(documents.flatMap(deadLinks), []);
  });

  it('have the headings that the alerts of deploy/monitoring/ lead to', () => {
    for (const { alert, annotations } of alertRules()) {
      const [path, anchor] = annotations.runbook!.split('#');
      assert.ok(anchorsOf(read(path!)).includes(anchor!), `${alert}: ${annotations.runbook}`);
    }
  });

  it('have the headings to which programs and manifests send people', () => {
    const wrong: string[] = [];
    let headings = 0;
    for (const path of globSync(['src/**/*.ts', 'web/src/**/*.ts', 'deploy/**/*'], { cwd: root })) {
      if (path.endsWith('.test.ts') || !/\.\w+$/.test(path)) continue;
      for (const [mention, name, heading] of read(path).matchAll(/\bdocs\/(\w+\.md)(?:[^.'"`\n]*\("([^"]+)"\))?/g)) {
        const isThere = existsSync(join(root, 'docs', name!));
        if (heading !== undefined) headings++;
        if (!isThere || (heading !== undefined && !read(`docs/${name}`).includes(`\n## ${heading}\n`)))
          wrong.push(`${path}: ${mention}`);
      }
    }
    assert.ok(headings >= 4, `${headings} headings`);
    assert.deepEqual(wrong, []);
  });

  it('name files of this repository that exist', () => {
    const missing = documents.flatMap((path) =>
      [...read(path).matchAll(/`((?:src|test|bench|docs|scripts|bin|deploy)\/[\w./-]*\w(?:\.\w+|\/))`/g)]
        .map((match) => match[1]!)
        .filter((named) => !existsSync(join(root, named)))
        .map((named) => `${path} → ${named}`),
    );
    assert.deepEqual(missing, []);
  });

  it('speak of no machine of their authors', () => {
    for (const path of documents) assert.doesNotMatch(read(path), /\/root\/|\/home\/|\/tmp\/[a-z]+\./, path);
  });

  it('describe every make target in the README or CONTRIBUTING, and no other', () => {
    const targets = [...read('Makefile').matchAll(/^([a-z0-9-]+):.*## /gm)].map((match) => match[1]!);
    assert.ok(targets.includes('lab'));
    const text = read('README.md') + read('CONTRIBUTING.md');
    const named = new Set([...text.matchAll(/\bmake ([a-z][a-z0-9-]*)/g)].map((match) => match[1]!));
    const spans = new Set([...text.matchAll(/`make ([a-z][a-z0-9-]*)/g)].map((match) => match[1]!));
    assert.deepEqual(
      targets.filter((target) => target !== 'help' && !named.has(target)),
      [],
    );
    assert.deepEqual(
      [...spans].filter((target) => !targets.includes(target)),
      [],
    );
  });

  it('number the decisions without a gap, each with a status', () => {
    const decisions = globSync('docs/adr/*.md', { cwd: root }).sort();
    assert.ok(decisions.length > 0);
    decisions.forEach((path, index) => {
      assert.match(path, new RegExp(`/${String(index + 1).padStart(4, '0')}-[a-z0-9-]+\\.md$`));
      assert.match(
        read(path),
        new RegExp(`^# ${index + 1}\\. .+\\n\\nStatus: (accepted|superseded by \\[\\d+\\]\\()`),
        path,
      );
    });
  });
});

describe('CHANGELOG.md', () => {
  const text = read('CHANGELOG.md');
  const headings = [...text.matchAll(/^## (.+)$/gm)].map((match) => match[1]!);

  it('keeps the form of Keep a Changelog 1.1', () => {
    assert.match(text, /^# Changelog\n/);
    assert.equal(headings[0], '[Unreleased]');
    for (const heading of headings.slice(1)) assert.match(heading, /^\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}$/);
    for (const [, kind] of text.matchAll(/^### (.+)$/gm)) {
      assert.match(kind!, /^(Added|Changed|Deprecated|Removed|Fixed|Security)$/);
    }
  });

  it('lists the newest first, up to the version of package.json at most', () => {
    const versions = headings.slice(1).map((heading) => /\d+\.\d+\.\d+/.exec(heading)![0]);
    const order = (version: string): number => version.split('.').reduce((sum, part) => sum * 10_000 + Number(part), 0);
    assert.deepEqual(
      versions,
      versions.toSorted((a, b) => order(b) - order(a)),
    );
    const own = (JSON.parse(read('package.json')) as { version: string }).version;
    assert.ok(versions.length === 0 || order(versions[0]!) <= order(own));
  });
});
