import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, readdirSync, readlinkSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { BpfMap } from '../../src/dataplane/fast-path/bpf-map.ts';
import { GRANT_VALUE_BYTES } from '../../src/dataplane/fast-path/layout.ts';
import { type BpfMapOptions, createBpfMap } from '../../src/linux/bpf.ts';
import { openBpfDirectory } from '../../src/linux/bpf-directory.ts';
import { createFastPathTables } from '../../src/linux/fast-path/programs.ts';
import { addressOf } from '../../src/linux/ffi.ts';
import { collectGarbage } from '../../src/runtime-flags.ts';
import { bpfMapContract } from '../contract/bpf-map.ts';
import { folderOnBpffs } from './bpffs.ts';

bpfMapContract('kernel', createBpfMap);

const OPTIONS: BpfMapOptions = { kind: 'hash', name: 'weft_test', keyBytes: 4, valueBytes: 8, maxEntries: 1 };

it('gives the kernel’s memory back when it is disposed', () => {
  const targetOf = (fd: number): string | undefined => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return undefined;
    }
  };
  const map = createBpfMap(OPTIONS);
  assert.equal(targetOf(map.fd), 'anon_inode:bpf-map');
  map[Symbol.dispose]();
  assert.notEqual(targetOf(map.fd), 'anon_inode:bpf-map');
});

it('keeps what the kernel reads and writes from the garbage collector', () => {
  using map = createBpfMap(OPTIONS);
  const [key, value] = [Uint8Array.of(1, 2, 3, 4), Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8)];
  for (let round = 0; round < 20; round++) {
    // The address of each view that is asked for keeps a few of them for a while.
    for (let count = 0; count < 100; count++) addressOf(new Uint8Array(new SharedArrayBuffer(72)).fill(0xff));
    collectGarbage();
    const found = new Uint8Array(8);
    assert.deepEqual([map.update(key, value), map.lookup(key, found), map.keys()], [0, 0, [key]]);
    assert.deepEqual([found, map.remove(key), map.first(key) < 0], [value, 0, true]);
  }
});

it('says which map the kernel would not make, and why', () => {
  assert.throws(() => createBpfMap({ ...OPTIONS, maxEntries: 0 }), {
    name: 'WeftError',
    code: 'WEFT_FAST_PATH',
    message: /the BPF map weft_test: EINVAL$/,
  });
});

it('the fast path looks for hosts that await it in a small table, of which the kernel walks each bucket, and has room for all peers elsewhere', () => {
  using tables = createFastPathTables(undefined, 4);
  const { awaiting, grants } = tables.maps;
  const roomOf = (map: BpfMap, value: Uint8Array): number => {
    const key = new DataView(new ArrayBuffer(4));
    for (let count = 0; count < 2_000; count++) {
      key.setUint32(0, count);
      if (map.add(new Uint8Array(key.buffer), value) < 0) return count;
    }
    return 2_000;
  };
  assert.equal(roomOf(awaiting, new Uint8Array(4)), 1_024);
  assert.equal(roomOf(grants, new Uint8Array(GRANT_VALUE_BYTES)), 2_000);
  assert.equal(tables.takeAwaiting(2_000).length, 1_024);
  assert.deepEqual(tables.takeAwaiting(1), []);
});

describe('the directory for what outlives the agent, on a bpffs that everybody may write to', () => {
  const stack = new AsyncDisposableStack();
  let root: string;
  before(async () => {
    root = await folderOnBpffs(stack);
  });
  after(() => stack.disposeAsync());

  it('is root’s alone, and found again', () => {
    // The kernel's own mode of a mount that gives none.
    assert.equal(statSync(dirname(root)).mode & 0o7777, 0o1777);
    const directory = openBpfDirectory(root, 'flannel0');
    for (const each of [root, directory]) {
      const { mode, uid } = statSync(each);
      assert.deepEqual([mode & 0o7777, uid], [0o700, 0], each);
    }
    assert.equal(openBpfDirectory(root, 'flannel0'), directory);
  });

  it('is not taken when somebody else has made it, or may write to it', () => {
    const other = `${root}-other`;
    mkdirSync(other);
    chownSync(other, 65_534, 65_534);
    const refused = (message: RegExp) =>
      assert.throws(() => openBpfDirectory(other, 'flannel0'), { code: 'WEFT_FAST_PATH', message });
    refused(/users other than this agent’s may write to .*-other \(user 65534, mode 755\)$/);
    assert.deepEqual(readdirSync(other), []);
    chownSync(other, 0, 0);
    chmodSync(other, 0o777);
    refused(/\(user 0, mode 777\)$/);
    rmSync(other, { recursive: true });
    symlinkSync('/tmp', other);
    refused(/\(user 0, mode 777\)$/);
  });
});
