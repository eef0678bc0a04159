import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inspect } from 'node:util';
import { FAKE_IDENTITY_HOST, openedBackend } from '../../test/fakes/backends.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { CloudRoute, ExternalInterface } from './backend.ts';

const EXTERNAL: ExternalInterface = {
  ...{ name: 'eth0', mtuBytes: 1500, onLink: [] },
  ...{ addresses: addresses('192.168.77.1'), publicAddresses: addresses('192.168.77.9') },
};
const NO_VARIABLES = { ...FAKE_IDENTITY_HOST, variable: () => undefined };

async function cloudRoute(backend: object, host = FAKE_IDENTITY_HOST): Promise<CloudRoute | undefined> {
  const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'tencent-vpc', ...backend } });
  const opened = await openedBackend(netConf, EXTERNAL, { host });
  const subnets = { ipv4: parsePrefix4('10.244.1.0/24'), ipv6: undefined };
  return opened.host({ subnets, attrs: opened.attrs, expiresAtMs: undefined }).cloudRoute;
}

describe('backend tencent-vpc', () => {
  it('wants a route to its subnet, by way of the published address', async () => {
    const route = await cloudRoute({ AccessKeyID: 'id', AccessKeySecret: 'key' }, NO_VARIABLES);
    assert(route !== undefined);
    const { credentials, ...rest } = route;
    assert.deepEqual(rest, {
      ...{ subnet: parsePrefix4('10.244.1.0/24'), gateway: parseIpv4('192.168.77.9') },
      network: parsePrefix4('10.244.0.0/16'),
    });
    assert.deepEqual([credentials.id.reveal(), credentials.secret.reveal()], ['id', 'key']);
  });

  it('takes the key from the environment where the configuration does not have both parts', async () => {
    for (const backend of [{}, { AccessKeyID: 'id' }, { AccessKeyID: '', AccessKeySecret: 'key' }]) {
      const { id, secret } = (await cloudRoute(backend))!.credentials;
      assert.deepEqual(
        [id.reveal(), secret.reveal()],
        ['the value of ACCESS_KEY_ID', 'the value of ACCESS_KEY_SECRET'],
      );
    }
  });

  it('is refused without a key, before a lease is taken', async () => {
    await assert.rejects(cloudRoute({ AccessKeyID: 'id' }, NO_VARIABLES), {
      code: 'WEFT_CONFIG_INVALID',
      message: 'ACCESS_KEY_ID and ACCESS_KEY_SECRET must be provided!',
    });
  });

  it('shows its key to nobody who prints what it wants', async () => {
    const route = await cloudRoute({ AccessKeyID: 'the-id', AccessKeySecret: 'the-key' });
    assert.doesNotMatch(`${inspect(route, { depth: 9 })}${JSON.stringify(route)}`, /the-id|the-key/);
  });
});
