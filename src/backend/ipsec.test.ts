import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inspect } from 'node:util';
import { openedBackend } from '../../test/fakes/backends.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import { describePolicy } from '../desired/state.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import type { Backend, ExternalInterface } from './backend.ts';
import { isSkipped } from './backend.ts';

const PSK = '0123456789abcdef'.repeat(6);
const EXTERNAL: ExternalInterface = {
  ...{ name: 'eth0', mtuBytes: 1500, onLink: [parsePrefix4('192.168.0.0/24')!] },
  ...{ addresses: addresses('192.168.0.1'), publicAddresses: addresses('192.168.0.1') },
};

function lease(host: number, backendType = 'ipsec'): Lease {
  return {
    subnets: { ipv4: parsePrefix4(`10.244.${host}.0/24`), ipv6: undefined },
    attrs: {
      publicAddresses: { ipv4: parseIpv4(`192.168.0.${host}`), ipv6: undefined },
      ...{ backendType, backendData: { ipv4: undefined, ipv6: undefined } },
    },
    expiresAtMs: undefined,
  };
}

const open = (keys: object, network: object = {}): Promise<Backend> =>
  openedBackend(
    JSON.stringify({ Network: '10.244.0.0/16', ...network, Backend: { Type: 'ipsec', ...keys } }),
    EXTERNAL,
  );

describe('ipsec', () => {
  it('refuses a short key and none with flannel’s words, without showing it', async () => {
    for (const keys of [{ PSK: PSK.slice(1) }, { PSK: '' }, {}]) {
      await assert.rejects(open(keys), (error: Error & { code: string }) => {
        assert.equal(error.code, 'WEFT_CONFIG_INVALID');
        assert.match(error.message, /config error, password is too short/);
        return !error.message.includes('56789abc');
      });
    }
    await open({ PSK });
  });

  it('takes flannel’s room from the MTU, and publishes its type alone', async () => {
    assert.equal((await open({ PSK })).mtuBytes, 1423);
    const { mtuBytes, attrs } = await open({ PSK, UDPEncap: true });
    assert.equal(mtuBytes, 1415);
    assert.deepEqual([attrs.backendType, attrs.backendData.ipv4], ['ipsec', undefined]);
  });

  it('has flannel’s algorithms unless others are given, and carries IPv4 alone', async () => {
    assert.equal((await open({ PSK })).ike?.espProposal, 'aes128gcm16-sha256-prfsha256-ecp256');
    assert.equal(
      (await open({ PSK, ESPProposal: 'aes256-sha256-modp2048' })).ike?.espProposal,
      'aes256-sha256-modp2048',
    );
    const dual = await open({ PSK }, { EnableIPv6: true, IPv6Network: 'fd10::/48' });
    assert.deepEqual(
      dual.host(lease(1)).kernel.routes.map(({ dst }) => dst),
      [parsePrefix4('10.244.0.0/16')],
    );
  });

  it('sends to a peer, and takes from it, what is in the tunnel, and otherwise nothing of the network', async () => {
    const backend = await open({ PSK });
    const part = backend.peer(lease(1), lease(2));
    assert(!isSkipped(part));
    assert.deepEqual(part.kernel.policies?.map(describePolicy), [
      'out 10.244.1.0/24 to 10.244.2.0/24 tunnel 192.168.0.1 to 192.168.0.2',
      'in 10.244.2.0/24 to 10.244.1.0/24 tunnel 192.168.0.2 to 192.168.0.1',
      'fwd 10.244.2.0/24 to 10.244.1.0/24 tunnel 192.168.0.2 to 192.168.0.1',
    ]);
    assert.deepEqual(part.connection?.name, '192.168.0.1-10.244.1.0/24-10.244.2.0/24-192.168.0.2');
    assert.deepEqual(backend.host(lease(1)).kernel.policies?.map(describePolicy), [
      'out 10.244.1.0/24 to 10.244.0.0/16 block',
      'out 10.244.1.0/24 to 10.244.1.0/24 allow',
      'in 10.244.0.0/16 to 10.244.1.0/24 block',
      'in 10.244.1.0/24 to 10.244.1.0/24 allow',
      'fwd 10.244.0.0/16 to 10.244.1.0/24 block',
      'fwd 10.244.1.0/24 to 10.244.1.0/24 allow',
    ]);
  });

  it('skips a host of another backend', async () => {
    const part = (await open({ PSK })).peer(lease(1), lease(2, 'vxlan'));
    assert(isSkipped(part));
    assert.match(part.skipped, /vxlan.*ipsec/);
  });

  it('shows its key to nobody who looks at it', async () => {
    const backend = await open({ PSK });
    const shown = `${inspect(backend, { depth: 9 })} ${JSON.stringify(backend)} ${JSON.stringify(backend.peer(lease(1), lease(2)))}`;
    assert(!shown.includes(PSK.slice(0, 12)), shown);
  });
});
