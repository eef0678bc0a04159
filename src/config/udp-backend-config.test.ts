import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { WeftError } from '../errors.ts';
import { readBackendKeys, VXLAN_KEYS } from './backend-keys.ts';
import { parseUdpBackendConfig } from './udp-backend-config.ts';

describe('udp backend configuration', () => {
  it('defaults to flannel port 8285 and the MTU of the interface', () => {
    assert.deepEqual(parseUdpBackendConfig({ backend: {} }), { port: 8285, mtuBytes: undefined });
    assert.deepEqual(parseUdpBackendConfig({ backend: { Type: 'udp', Port: null, MTU: 0 } }), {
      port: 8285,
      mtuBytes: undefined,
    });
  });

  it('reads keys in any case, the last spelling winning', () => {
    const backend = { port: 1, PORT: 65_535, mtu: 9000 };
    assert.deepEqual(parseUdpBackendConfig({ backend }), { port: 65_535, mtuBytes: 9000 });
  });

  it('reports all wrong keys at once', () => {
    assert.throws(
      () => parseUdpBackendConfig({ backend: { Port: 0, mtu: 'big' } }, 'net-conf.json'),
      (error: unknown) =>
        error instanceof WeftError &&
        error.code === 'WEFT_CONFIG_INVALID' &&
        error.message ===
          'cannot use the network configuration in net-conf.json: ' +
            '$.Backend.Port: must be a whole number from 1 to 65535, but is 0; ' +
            '$.Backend.mtu: must be a whole number from 96 to 65535, or 0 for the default, but is the string "big"',
    );
  });
});

describe('Backend object', () => {
  it('is read by table: typed values, problems and ignored keys', () => {
    const backend = { type: 'vxlan', vni: 7, gbp: true, DirectRouting: 'yes', nolearning: false };
    const reading = readBackendKeys(backend, VXLAN_KEYS);
    assert.equal(reading.values.VNI satisfies number | undefined, 7);
    assert.equal(reading.values.GBP satisfies boolean | undefined, true);
    assert.equal(reading.values.Port, undefined);
    assert.deepEqual(reading.ignoredKeys, ['$.Backend.nolearning']);
    assert.deepEqual(reading.problems, [
      { path: '$.Backend.DirectRouting', message: 'must be true or false, but is the string "yes"' },
    ]);
  });
});
