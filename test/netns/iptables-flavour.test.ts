import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/linux/run.ts';
import { withNamespace } from './traffic-namespace.ts';

const SCRIPT = fileURLToPath(new URL('../../deploy/image/iptables-flavour', import.meta.url));
const NAMES = ['', '6'].flatMap((family) => ['', '-save', '-restore'].map((verb) => `ip${family}tables${verb}`));

/** The image's shell, in which the first argument is a folder of programs, and what a container has of its own. */
const SHELL = ['unshare', '--mount', 'busybox', 'sh', '-ec'];
const OWN_SHM = 'PATH="$1:$PATH"; mount -t tmpfs none /dev/shm';

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
      // The very call that finds it out does what it was called for.
      const words = NAMES.filter((name) => !name.endsWith('-restore')).map((name) => `${name} --version`);
      const script = `${OWN_SHM}; iptables -N WEFT-TEST; ${words.join('; ')}`;
      const { stdout: versions } = await run([...SHELL, script, 'sh', folder], { netns });
      const own = flavour === 'nft' ? /^ip.* v[\d.]+ \(nf_tables\)$/ : /^ip.* v[\d.]+ \(legacy\)$/;
      assert.equal(versions.trim().split('\n').length, words.length);
      for (const version of versions.trim().split('\n')) assert.match(version, own);
      const { stdout } = await run([`xtables-${flavour}-multi`, 'iptables-save'], { netns });
      assert.match(stdout, /^:WEFT-TEST /m);
    });
  }

  it('is itself for all that call it at once, the first time', async () => {
    await using namespace = await withNamespace();
    const calls = Array.from({ length: 40 }, () => 'iptables --version & ip6tables --version &');
    const argv = [...SHELL, `${OWN_SHM}; ${calls.join(' ')} wait`, 'sh', folder];
    const { stdout, stderr } = await run(argv, { netns: namespace.name });
    assert.deepEqual([stdout.trim().split('\n').length, stderr], [80, '']);
  });

  it('looks once, and for the flavour of each pod anew', async () => {
    await using namespace = await withNamespace();
    // The programs say that they were called, and go on as themselves.
    for (const flavour of ['nft', 'legacy']) {
      const program = join(folder, `xtables-${flavour}-multi`);
      rmSync(program);
      writeFileSync(program, `#!/bin/sh\necho "$*" >&2\nexec /usr/sbin/xtables-${flavour}-multi "$@"\n`, {
        mode: 0o755,
      });
    }
    // What containers have: a root that cannot be written, and a /dev/shm of the pod.
    const script = `${OWN_SHM}; mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
      iptables -N WEFT-FIRST 2>/dev/null; iptables -N WEFT-SECOND; ls /dev/shm; cat /dev/shm/*`;
    const argv = [...SHELL, script, 'sh', folder];
    await run(['xtables-legacy-multi', 'iptables', '-t', 'mangle', '-N', 'KUBE-IPTABLES-HINT'], {
      netns: namespace.name,
    });
    const { stdout, stderr } = await run(argv, { netns: namespace.name });
    assert.equal(stdout, 'weft-iptables-flavour\nlegacy\n');
    assert.equal(stderr, 'iptables -N WEFT-SECOND\n', 'the second call asks nothing');
    const { stdout: rules } = await run(['xtables-legacy-multi', 'iptables-save'], { netns: namespace.name });
    assert.match(rules, /^:WEFT-FIRST .*\n:WEFT-SECOND /m);
  });
});
