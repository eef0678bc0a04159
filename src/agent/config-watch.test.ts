import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import { WeftError } from '../errors.ts';
import { ConfigWatch, type LiveChange } from './config-watch.ts';

const config = (backend: object): NetworkConfig =>
  parseNetConf(JSON.stringify({ Network: '10.244.0.0/16', Backend: backend }), {
    ...{ source: 'test', validation: 'full', backends: backendKind },
  });

/** What is said while the store answers one after the other; whether it is outdated after each. */
async function watched(answers: readonly (NetworkConfig | Error)[], live?: LiveChange) {
  const lines: string[] = [];
  const outdated: boolean[] = [];
  const done = Promise.withResolvers<void>();
  let asked = 0;
  await using watch: ConfigWatch = new ConfigWatch({
    inUse: config({ Type: 'udp' }),
    read: async () => {
      if (asked > 0) outdated.push(watch.isOutdated);
      const answer = answers[asked++];
      if (answer === undefined) {
        done.resolve();
        throw new Error('the test is over');
      }
      if (answer instanceof Error) throw answer;
      return answer;
    },
    isStoreThere: () => asked <= answers.length,
    live,
    intervalMs: 1,
    log: { info: (text) => void lines.push(text), warn: (text) => void lines.push(text) },
  });
  await done.promise;
  return { lines, outdated };
}

test('a change is said once, and that it was taken back', async () => {
  const { lines, outdated } = await watched([
    config({ Type: 'udp' }),
    config({ Type: 'vxlan', VNI: 7 }),
    config({ Type: 'vxlan', VNI: 7 }),
    config({ Type: 'udp', Port: 9000 }),
    config({ Type: 'udp' }),
  ]);
  assert.deepEqual(lines, [
    'The network configuration has changed: the backend is now vxlan, no longer udp; restart this agent to apply it',
    'The network configuration has changed: restart this agent to apply it',
    'The network configuration matches the one in use again',
  ]);
  assert.deepEqual(outdated, [false, true, true, true, false]);
});

test('one that would keep the agent from starting again is named; a store that is away is not its business', async () => {
  const { lines, outdated } = await watched([
    new WeftError('WEFT_STORE_UNAVAILABLE', 'nobody answers'),
    new WeftError('WEFT_CONFIG_INVALID', '$.Network: must be a string'),
    new WeftError('WEFT_STORE_UNAVAILABLE', 'nobody answers'),
  ]);
  assert.equal(lines.length, 1);
  assert.match(lines[0]!, /cannot be used, and the agent would not start with it: \$\.Network: must be a string/);
  assert.deepEqual(outdated, [false, true, true]);
});

describe('where changes are to be applied while the agent runs', () => {
  test('another backend is, once the host has been found to do', async () => {
    const calls: string[] = [];
    const { lines, outdated } = await watched([config({ Type: 'udp' }), config({ Type: 'vxlan' })], {
      check: async ({ backend }) => void calls.push(`check ${backend.type}`),
      startAnew: () => void calls.push('start'),
    });
    assert.deepEqual(calls, ['check vxlan', 'start']);
    assert.deepEqual(lines, [
      'The network configuration has changed: the backend is now vxlan, no longer udp; applying it',
    ]);
    assert.deepEqual(outdated, [false, false]);
  });

  test('one that the host cannot work with is not, and that is said once, with the reason', async () => {
    const refusing: LiveChange = {
      check: async () => {
        throw new WeftError('WEFT_BACKEND_UNKNOWN', 'Error fetching backend: unknown backend type: vxlam');
      },
      startAnew: () => assert.fail('it must not be applied'),
    };
    const { lines, outdated } = await watched([config({ Type: 'vxlan' }), config({ Type: 'vxlan' })], refusing);
    assert.equal(lines.length, 1);
    assert.match(lines[0]!, /; it is not applied, because this host cannot use it: .*unknown backend type: vxlam/);
    assert.deepEqual(outdated, [true, true]);
  });

  test('other networks are not: containers have addresses in those that are in use', async () => {
    const untold: LiveChange = {
      check: async () => assert.fail('it must not be considered'),
      startAnew: () => assert.fail('it must not be applied'),
    };
    const other = { ...config({ Type: 'vxlan' }) };
    const { lines } = await watched([{ ...other, ipv4: { ...other.ipv4!, subnetLength: 25 } }], untold);
    assert.equal(lines.length, 1);
    assert.match(
      lines[0]!,
      /the networks differ, and running containers would lose their addresses: restart this agent to apply it$/,
    );
  });
});
