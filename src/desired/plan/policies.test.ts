import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAddr, parsePrefix } from '../../ip/address.ts';
import { describeOp } from '../op.ts';
import {
  type ActualIpsecPolicy,
  type ActualState,
  EMPTY_WANTED_STATE,
  type IpsecPolicy,
  POLICY_PRIORITIES,
  type WantedState,
} from '../state.ts';
import { reconcile } from './plan.ts';

const prefix = (text: string) => parsePrefix(text)!;
const tunnel = { kind: 'tunnel', from: parseAddr('192.168.0.1')!, to: parseAddr('192.168.0.2')! } as const;
const out = (host: number, verdict: IpsecPolicy['verdict'] = tunnel): IpsecPolicy => ({
  direction: 'out',
  ...{ src: prefix('10.244.1.0/24'), dst: prefix(`10.244.${host}.0/24`), verdict },
});
const there = (policy: IpsecPolicy, priority = POLICY_PRIORITIES[policy.verdict.kind]): ActualIpsecPolicy => ({
  ...policy,
  priority,
});
const WANTED: WantedState = {
  ...EMPTY_WANTED_STATE,
  policies: [out(2)],
  networks: [prefix('10.244.0.0/16')],
  staleRoutes: 'own-networks',
};
const planned = (wanted: WantedState, ...policies: readonly ActualIpsecPolicy[]): string[] => {
  const nothing = { links: [], addresses: [], routes: [], neighbours: [], fdb: [], sysctls: [] };
  const actual: ActualState = { ...nothing, policies };
  return reconcile(wanted, actual).map(describeOp);
};
const SET = 'set IPsec policy out 10.244.1.0/24 to 10.244.2.0/24 tunnel 192.168.0.1 to 192.168.0.2';

describe('IPsec policies', () => {
  it('are set where they are missing or say something else, flanneld’s too, and left where they are right', () => {
    assert.deepEqual(planned(WANTED), [SET]);
    assert.deepEqual(planned(WANTED, there(out(2))), []);
    assert.deepEqual(planned(WANTED, there(out(2), 0)), [SET]);
    assert.deepEqual(planned(WANTED, there(out(2, { ...tunnel, to: parseAddr('192.168.0.9')! }))), [SET]);
    assert.deepEqual(planned(WANTED, there(out(2, { kind: 'allow' }))), [SET]);
    assert.deepEqual(planned(WANTED, { ...out(2), priority: 7, verdict: { kind: 'other' } }), [SET]);
  });

  it('of hosts that have gone are taken away, weft’s and flanneld’s', () => {
    const gone = 'delete IPsec policy out 10.244.1.0/24 to 10.244.3.0/24 tunnel 192.168.0.1 to 192.168.0.2';
    assert.deepEqual(planned(WANTED, there(out(2)), there(out(3))), [gone]);
    assert.deepEqual(planned(WANTED, there(out(2)), there(out(3), 0)), [gone]);
    // Also by an agent with a backend that has none.
    assert.deepEqual(planned({ ...WANTED, policies: [] }, there(out(3))), [gone]);
  });

  it('of others are left alone', () => {
    const other = { ...out(3), verdict: { kind: 'other' } as const, priority: 0 };
    assert.deepEqual(
      planned(WANTED, there(out(2)), other, there(out(4), 100), there(out(5, { kind: 'block' }), 0)),
      [],
    );
    const elsewhere = { ...there(out(3)), src: prefix('10.9.0.0/24'), dst: prefix('10.9.1.0/24') };
    assert.deepEqual(planned(WANTED, there(out(2)), elsewhere), []);
    assert.deepEqual(planned({ ...WANTED, staleRoutes: 'own-links' }, there(out(2)), there(out(3))), []);
    assert.equal(planned({ ...EMPTY_WANTED_STATE, staleRoutes: 'everywhere' }, elsewhere).length, 1);
  });
});
