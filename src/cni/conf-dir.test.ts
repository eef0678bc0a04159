import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { confFilesBefore, hiddenBy } from './conf-dir.ts';

test('the configurations before ours, as a runtime sorts them', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-conf-dir-'));
  try {
    for (const name of [
      '10-containerd-net.conflist',
      '10-flannel.conflist',
      '11-other.conf',
      '00-multus.conf',
      '10-a.json',
      '10-Z.conf',
      '.10-flannel.conflist.1',
      '05-old.conflist.bak',
    ]) {
      writeFileSync(join(folder, name), '{}');
    }
    mkdirSync(join(folder, '01-folder.conf'));
    assert.deepEqual(await confFilesBefore(folder, '10-flannel.conflist'), [
      '00-multus.conf',
      '10-Z.conf',
      '10-a.json',
      '10-containerd-net.conflist',
    ]);
    assert.deepEqual(await confFilesBefore(join(folder, 'none'), '10-flannel.conflist'), []);
    await assert.rejects(confFilesBefore(join(folder, '10-a.json'), '10-flannel.conflist'), { code: 'ENOTDIR' });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a hidden configuration is said in one sentence, with what to do', () => {
  assert.match(
    hiddenBy('/etc/cni/net.d', ['10-containerd-net.conflist'], '10-flannel.conflist'),
    /^\/etc\/cni\/net\.d\/10-containerd-net\.conflist sorts before 10-flannel\.conflist, so .* uses it instead.* Move it away/,
  );
  assert.match(hiddenBy('/d', ['1.conf', '2.conf'], '3.conf'), /^\/d\/1\.conf, \/d\/2\.conf sort before .* Move them/);
});
