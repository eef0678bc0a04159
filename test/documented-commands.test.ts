import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { prose, sectionOf, shellBlocks, shellCommands } from './markdown.ts';

/** Which tests run the commands of a section. */
const RUN_BY: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  'docs/INSTALL.md': {
    '## On kind': ['test/kind/cluster.test.ts'],
    '## On kubeadm': ['test/e2e/documented-commands.test.ts'],
    '## On k3s': ['test/e2e/documented-commands.test.ts'],
    '## On plain hosts': ['test/e2e/plain-hosts.test.ts'],
    '## Two hosts without a store': ['test/netns/documented-tunnel.test.ts'],
    '## On Kubernetes': ['test/kind/dockerfile.test.ts', 'test/kind/image.test.ts'],
    '### Another backend': ['test/e2e/documented-commands.test.ts'],
    "### An agent's token for its own Node alone": ['test/e2e/documented-commands.test.ts'],
    '## With Helm': ['test/e2e/documented-commands.test.ts'],
    '## With Docker': ['test/e2e/docker-run.test.ts'],
    '## The fast path': ['test/e2e/rolling-restart.test.ts'],
    '## Updates without a gap': ['test/e2e/rolling-restart.test.ts'],
    '## Removing it': ['test/e2e/documented-commands.test.ts', 'test/e2e/real-nodes.test.ts'],
  },
  'docs/UPGRADE.md': {
    '## On Kubernetes': ['test/e2e/documented-commands.test.ts'],
    '## On a host': ['test/e2e/plain-hosts.test.ts'],
  },
  'docs/MIGRATION.md': {
    '### From flannel to weft': ['test/e2e/documented-commands.test.ts'],
    '### From weft to flannel': ['test/e2e/documented-commands.test.ts'],
    '## On etcd, or without containers': ['test/e2e/plain-hosts.test.ts'],
  },
};

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

/** A section up to its first sub-section. */
function ownPart(text: string, heading: string): string {
  return sectionOf(text, heading).split(/^#+ [^\n]*$(?=\n\n)/m)[0]!;
}

describe('commands in documents', () => {
  for (const [path, sections] of Object.entries(RUN_BY)) {
    it(`of ${path} are run by a test that reads them there`, () => {
      const text = read(path);
      const headings = [...prose(text).matchAll(/^##+ .+$/gm)].map(([heading]) => heading);
      const withCommands = headings.filter((heading) => shellBlocks(ownPart(text, heading)).length > 0);
      assert.deepEqual(Object.keys(sections), withCommands);
      for (const test of Object.values(sections).flat()) {
        assert.ok(existsSync(join(root, test)), test);
        assert.ok(read(test).includes(path), `${test} reads ${path}`);
      }
    });
  }

  it('of the README are those of docs/INSTALL.md for kind, and those that CI runs', () => {
    const [make, kind] = shellBlocks(sectionOf(read('README.md'), '# weft')).map(shellCommands);
    assert.deepEqual(kind, shellCommands(shellBlocks(sectionOf(read('docs/INSTALL.md'), '## On kind'))[0]!));
    const ci = read('.ci/run');
    for (const command of make!) assert.ok(ci.includes(` ${command}`), `.ci/run has ${command}`);
  });
});
