import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NodeCondition } from './node-condition.ts';
import { NodeReadiness } from './readiness.ts';

/** Lets promises settle. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a failure that lasts is told once, another one anew, its end is told; a short one is not', async () => {
  let lookNow = (): void => assert.fail('nobody looks');
  const readiness = new NodeReadiness();
  let failure: string | undefined;
  using _ = readiness.watch('kernel', {
    get failure() {
      return failure;
    },
  });
  readiness.started();
  const told: string[] = [];
  let isRefused = false;
  const refuse = (): void => {
    if (isRefused) throw new Error('the API server is away');
  };
  await using condition = new NodeCondition({
    readiness,
    report: async ({ code, message }) => {
      refuse();
      told.push(`${code}: ${message}`);
    },
    clear: async () => {
      refuse();
      told.push('clear');
    },
    log: { warn: () => {} },
    ticker: {
      every: (_ms, work) => {
        lookNow = work;
        return { [Symbol.dispose]: () => {} };
      },
    },
  });
  assert.ok(condition);
  const look = async (): Promise<void> => {
    lookNow();
    await turn();
  };
  failure = 'short';
  await look();
  failure = undefined;
  await look();
  assert.deepEqual(told, []);
  failure = 'the route is taken';
  for (let index = 0; index < 5; index++) await look();
  assert.deepEqual(told.splice(0), ['WEFT_NOT_READY: flanneld is not ready: the route is taken']);
  failure = 'ip is refused';
  await look();
  assert.deepEqual(told.splice(0), ['WEFT_NOT_READY: flanneld is not ready: ip is refused']);
  failure = undefined;
  isRefused = true;
  await look();
  assert.deepEqual(told, []);
  isRefused = false;
  await look();
  await look();
  assert.deepEqual(told, ['clear']);
});
