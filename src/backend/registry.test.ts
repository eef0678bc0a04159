import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseNetConf } from '../config/net-conf.ts';
import { backendKind, backendOfLease, configuredBackend } from './registry.ts';

const configured = (backend: object) =>
  configuredBackend(
    parseNetConf(JSON.stringify({ Network: '10.244.0.0/16', Backend: backend }), {
      ...{ source: 'test', validation: 'kube', backends: backendKind },
    }),
  );

describe('Backend.Type', () => {
  it('that nobody knows is refused with flannel’s words and what there is', () => {
    assert.throws(() => configured({ Type: 'Carrier-Pigeon' }), {
      code: 'WEFT_BACKEND_UNKNOWN',
      message: 'Error fetching backend: unknown backend type: carrier-pigeon',
      hint: /^weft offers: vxlan, host-gw, .*extension.*tencent-vpc$/,
    });
  });
});

it('a lease that names no backend is of this host’s own, if that has no name there, else of udp', () => {
  const name = (backendType: string, own: string | undefined) =>
    backendOfLease({ backendType }, own === undefined ? undefined : { backend: { type: own } });
  assert.deepEqual(
    [name('', 'alloc'), name('', 'udp'), name('', 'vxlan'), name('', undefined), name('vxlan', 'alloc')],
    ['alloc', 'udp', 'udp', 'udp', 'vxlan'],
  );
});
