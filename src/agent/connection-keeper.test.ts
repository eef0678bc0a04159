import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddr, type IpAddr, parseAddr } from '../ip/address.ts';
import { ConnectionKeeper } from './connection-keeper.ts';

const address = (text: string): IpAddr => parseAddr(text) ?? assert.fail(text);

/** A host that gives notice when the test says so. */
async function keep(steps: readonly (readonly string[] | Error)[]) {
  const kept: string[][] = [];
  const lines: string[] = [];
  let retries = 0;
  const done = Promise.withResolvers<void>();
  const left = [...steps];
  const keeper = new ConnectionKeeper({
    connections: {
      keepOnly: (addresses) => {
        kept.push([...addresses]);
        return new Map(addresses.has('192.168.77.1') ? [] : [['192.168.77.1', 2]]);
      },
    },
    addresses: async () => {
      const step = left.shift();
      if (step instanceof Error) throw step;
      return (step ?? []).map(address);
    },
    notices: async function* () {
      for (const _ of steps) yield;
      done.resolve();
    },
    retryNow: () => void retries++,
    log: { warn: (text: string) => void lines.push(text) },
  });
  await done.promise;
  await keeper[Symbol.asyncDispose]();
  return { kept, lines, retries };
}

test('each notice closes what is bound to an address that has gone, and ends all waits', async () => {
  const { kept, lines, retries } = await keep([['192.168.77.1', 'fd77::1'], ['192.168.77.9']]);
  assert.deepEqual(kept, [['192.168.77.1', formatAddr(address('fd77::1'))], ['192.168.77.9']]);
  assert.deepEqual(lines, ['Closed 2 TCP connections from the address 192.168.77.1, which this host no longer has']);
  assert.equal(retries, 2);
});

test('addresses that cannot be read close nothing, and the next notice is looked at', async () => {
  const { kept, lines, retries } = await keep([new Error('no ip'), ['192.168.77.1']]);
  assert.equal(kept.length, 1);
  assert.match(lines[0]!, /no ip/);
  assert.equal(retries, 2);
});
