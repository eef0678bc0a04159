import assert from 'node:assert/strict';
import { readlinkSync } from 'node:fs';
import { it } from 'node:test';
import { type BpfMapOptions, createBpfMap } from '../../src/linux/bpf.ts';
import { bpfMapContract } from '../contract/bpf-map.ts';

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

it('says which map the kernel would not make, and why', () => {
  assert.throws(() => createBpfMap({ ...OPTIONS, maxEntries: 0 }), {
    name: 'WeftError',
    code: 'WEFT_FAST_PATH',
    message: /the BPF map weft_test: EINVAL$/,
  });
});
