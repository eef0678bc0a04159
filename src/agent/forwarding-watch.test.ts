import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FAMILIES, familiesIn } from '../ip/family.ts';
import { ForwardingWatch } from './forwarding-watch.ts';

const V4 = '/proc/sys/net/ipv4/ip_forward';
const V6 = '/proc/sys/net/ipv6/conf/all/forwarding';

test('what the kernel does not pass on is said once, by family, with the remedy, and that it does again', async () => {
  const states: readonly Readonly<Record<string, string>>[] = [
    { [V4]: '1\n', [V6]: '1\n' },
    { [V4]: '0\n', [V6]: '1\n' },
    { [V4]: '0\n', [V6]: '0\n' },
    { [V4]: '0\n', [V6]: '0\n' },
    { [V4]: '1\n', [V6]: '2\n' },
    // Not there: a kernel without IPv6.
    { [V4]: '1\n' },
  ];
  const lines: string[] = [];
  const off: (readonly string[])[] = [];
  const done = Promise.withResolvers<void>();
  let looks = 0;
  await using watch: ForwardingWatch = new ForwardingWatch({
    families: FAMILIES,
    intervalMs: 1,
    read: async (path) => {
      if (path === V4 && looks > 0) off.push(watch.off);
      const state = states[looks];
      if (state === undefined) {
        done.resolve();
        throw new Error('the test is over');
      }
      if (path === V6) looks++;
      return state[path];
    },
    log: { info: (text) => void lines.push(text), warn: (text) => void lines.push(`! ${text}`) },
  });
  await done.promise;
  const remedy = 'The bridge plugin sets it for the first pod, so another program may reset it.';
  assert.deepEqual(lines, [
    `! net.ipv4.ip_forward is 0: pods cannot reach anything beyond this host. Run sysctl -w net.ipv4.ip_forward=1. ${remedy}`,
    `! net.ipv6.conf.all.forwarding is 0: pods cannot reach anything beyond this host. Run sysctl -w net.ipv6.conf.all.forwarding=1. ${remedy}`,
    'net.ipv4.ip_forward is on again',
    'net.ipv6.conf.all.forwarding is on again',
  ]);
  const [ip4, ip6] = ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'];
  assert.deepEqual(off, [[], [ip4], [ip4, ip6], [ip4, ip6], [], []]);
});

test('a network of IPv6 alone does not need IPv4 to be passed on', async () => {
  const asked: string[] = [];
  const done = Promise.withResolvers<void>();
  await using _watch = new ForwardingWatch({
    ...{
      families: familiesIn({ ipv4: undefined, ipv6: true }),
      intervalMs: 1,
      log: { info: () => {}, warn: () => assert.fail('nothing is wrong') },
    },
    read: async (path) => {
      asked.push(path);
      if (asked.length === 2) done.resolve();
      return '1\n';
    },
  });
  await done.promise;
  assert.deepEqual(asked.slice(0, 2), [V6, V6]);
});
