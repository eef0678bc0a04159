import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseScale } from './scale-choice.ts';

test('make bench-scale measures what its options name, and nothing else', () => {
  assert.deepEqual(chooseScale(undefined, undefined), { udp: ['etcd', 'kube'], vxlan: ['etcd'] });
  assert.deepEqual(chooseScale('kube', undefined), { udp: ['kube'], vxlan: [] });
  assert.deepEqual(chooseScale('etcd', undefined), { udp: ['etcd'], vxlan: ['etcd'] });
  assert.deepEqual(chooseScale('etcd', 'udp'), { udp: ['etcd'], vxlan: [] });
  assert.deepEqual(chooseScale(undefined, 'vxlan'), { udp: [], vxlan: ['etcd'] });
  assert.throws(
    () => chooseScale('kube', 'vxlan'),
    /--backend vxlan is not measured with --store kube, only with etcd/,
  );
  assert.throws(() => chooseScale('local', undefined), /--store/);
  assert.throws(() => chooseScale(undefined, 'ipip'), /--backend/);
});
