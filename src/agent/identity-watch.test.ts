import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FAKE_IDENTITY_HOST } from '../../test/fakes/backends.ts';
import { hostGw } from '../backend/host-gw.ts';
import type { AnyBackendKind, BackendSetup } from '../backend/registry.ts';
import { WeftError } from '../errors.ts';
import { IdentityWatch, untouched, withoutFreshKeys } from './identity-watch.ts';

const setup = (identity: unknown): BackendSetup => ({ kind: hostGw as AnyBackendKind, config: {}, identity });

/** What is said while each of these is found, one after the other; and which identities were to be used when. */
async function watched(found: readonly (string | Error)[], isStoreThere = () => true) {
  const lines: string[] = [];
  const used: unknown[] = [];
  const done = Promise.withResolvers<void>();
  let asked = 0;
  await using watch: IdentityWatch = new IdentityWatch({
    initial: setup({ key: 'first' }),
    read: async () => {
      const one = found[asked++];
      if (one === undefined) {
        done.resolve();
        return watch.current;
      }
      if (one instanceof Error) throw one;
      return setup({ key: one });
    },
    isStoreThere,
    intervalMs: 1,
    log: { info: (text) => void lines.push(text), warn: (text) => void lines.push(text) },
  });
  const follow = (): void => {
    watch.changed.addEventListener('abort', () => {
      used.push(watch.current.identity);
      follow();
    });
  };
  follow();
  await done.promise;
  return { lines, used };
}

test('another identity is told once; the same one, read again, is not', async () => {
  const { lines, used } = await watched(['first', 'second', 'second', 'third']);
  assert.deepEqual(used, [{ key: 'second' }, { key: 'third' }]);
  assert.equal(lines.length, 2);
  assert.match(lines[0]!, /This host's key has been replaced/);
});

test('the one in use stays while there is none that can be used, which is said once', async () => {
  const unusable = new WeftError('WEFT_KEY_FILE', 'wgkey does not hold a WireGuard key');
  const { lines, used } = await watched([unusable, unusable, 'first', unusable, 'second']);
  assert.deepEqual(used, [{ key: 'second' }]);
  const refusal = /^Keeping the current key: wgkey does not hold a WireGuard key \[WEFT_KEY_FILE\]/;
  for (const [line, words] of [refusal, refusal, /has been replaced/].entries()) assert.match(lines[line]!, words);
  assert.equal(lines.length, 3);
});

test('nothing is taken while the store is away', async () => {
  let looks = 0;
  // Peers can learn of it from the fifth look on.
  const { used } = await watched(['second'], () => ++looks >= 5);
  assert.deepEqual(used, [{ key: 'second' }]);
  assert.ok(looks >= 5);
});

test('a key file that is missing is not made', async () => {
  const { signal } = new AbortController();
  const missing = withoutFreshKeys(FAKE_IDENTITY_HOST).keyFile(() => 'fresh', signal);
  await assert.rejects(missing, { code: 'WEFT_KEY_FILE', message: 'the file with the private key is gone' });
  const there = { ...FAKE_IDENTITY_HOST, keyFile: async () => ({ path: 'wgkey', text: 'old' }) };
  assert.equal((await withoutFreshKeys(there).keyFile(() => 'fresh', signal)).text, 'old');
});

test('whether a backend could be opened is found out without taking a device, running a command or making a key', async () => {
  const { signal } = new AbortController();
  const done: string[] = [];
  let key: string | undefined;
  const host = untouched({
    ...FAKE_IDENTITY_HOST,
    takeTun: (name) => done.push(name) > 0,
    runCommand: async ({ words }) => {
      done.push(words.join(' '));
      return { stdout: '', stderr: '' };
    },
    keyFile: async (fresh) => ({ path: 'wgkey', text: (key ??= fresh()) }),
  });
  assert.equal(host.takeTun('flannel0'), true);
  await host.runCommand({ words: ['rm', '-r', '/'], env: {}, stdin: '' }, signal);
  assert.equal((await host.keyFile(() => 'another', signal)).text, 'another');
  assert.deepEqual([done, key], [[], undefined]);
  key = 'that of this host';
  assert.equal((await host.keyFile(() => 'another', signal)).text, key);
});
