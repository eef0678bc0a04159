import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, mkdtempSync, readlinkSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/linux/run.ts';
import { withNamespace } from './traffic-namespace.ts';

const SCRIPT = fileURLToPath(new URL('../../deploy/image/iptables-flavour', import.meta.url));
const NAMES = ['', '6'].flatMap((family) => ['', '-save', '-restore'].map((verb) => `ip${family}tables${verb}`));

/** As `/usr/sbin` is in the image, so that the machine's own is left alone. */
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-flavour-'));
  copyFileSync(SCRIPT, join(folder, 'iptables-flavour'));
  chmodSync(join(folder, 'iptables-flavour'), 0o755);
  for (const name of NAMES) symlinkSync('iptables-flavour', join(folder, name));
  for (const flavour of ['nft', 'legacy']) {
    symlinkSync(`/usr/sbin/xtables-${flavour}-multi`, join(folder, `xtables-${flavour}-multi`));
  }
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('iptables in the image', () => {
  const cases: readonly [string, readonly (readonly string[])[], 'nft' | 'legacy'][] = [
    ['nothing', [], 'nft'],
    ["kubelet's chain in nft", [['nft', 'iptables', '-t', 'mangle', '-N', 'KUBE-IPTABLES-HINT']], 'nft'],
    ["kubelet's chain in legacy", [['legacy', 'iptables', '-t', 'mangle', '-N', 'KUBE-IPTABLES-HINT']], 'legacy'],
    [
      "an older kubelet's chain, IPv6 alone",
      [['legacy', 'ip6tables', '-t', 'mangle', '-N', 'KUBE-KUBELET-CANARY']],
      'legacy',
    ],
    ['more rules in legacy', [['legacy', 'iptables', '-A', 'FORWARD', '-j', 'ACCEPT']], 'legacy'],
    [
      "kubelet's chain in nft, more rules in legacy",
      [
        ['nft', 'iptables', '-t', 'mangle', '-N', 'KUBE-IPTABLES-HINT'],
        ['legacy', 'iptables', '-A', 'FORWARD', '-j', 'ACCEPT'],
      ],
      'nft',
    ],
  ];
  for (const [found, commands, flavour] of cases) {
    it(`is ${flavour} where the host has ${found}`, async () => {
      await using namespace = await withNamespace();
      const netns = namespace.name;
      for (const [own, ...words] of commands) await run([`xtables-${own}-multi`, ...words], { netns });
      const iptables = (...words: string[]): ReturnType<typeof run> =>
        run([join(folder, 'iptables'), ...words], { netns });
      // The very call that finds it out does what it was called for.
      await iptables('-N', 'WEFT-TEST');
      for (const name of NAMES) assert.equal(readlinkSync(join(folder, name)), `xtables-${flavour}-multi`);
      assert.match((await iptables('--version')).stdout, flavour === 'nft' ? /nf_tables/ : /legacy/);
      const { stdout } = await run([`xtables-${flavour}-multi`, 'iptables-save'], { netns });
      assert.match(stdout, /^:WEFT-TEST /m);
    });
  }
});
