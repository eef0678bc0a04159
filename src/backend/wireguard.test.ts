import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FAKE_IDENTITY_HOST, FAKE_PUBLIC_KEY, openedBackend } from '../../test/fakes/backends.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import { formatEndpoint, formatPrefix } from '../ip/address.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import type { Lease, LeaseAttrs } from '../lease/lease.ts';
import { type Backend, type ExternalInterface, isSkipped } from './backend.ts';
import { keyPairOf, newPrivateKey, parseWireguardKey } from './wireguard-key.ts';

const EXTERNAL: ExternalInterface = {
  name: 'eth0',
  mtuBytes: 1500,
  addresses: addresses('10.98.0.11', 'fd98::11'),
  publicAddresses: addresses('10.98.0.11', 'fd98::11'),
  onLink: [],
};
const PEER_KEY = 'CdgzuSHTj21IwHhbghAaTCY3b7ce8lpxIjsReHUP2A8=';
const PSK = '/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=';

function netConf(stack: 'ipv4' | 'ipv6' | 'dual', backend: object = {}): string {
  return JSON.stringify({
    ...(stack === 'ipv6' ? {} : { Network: '10.244.0.0/16' }),
    EnableIPv4: stack !== 'ipv6',
    ...(stack === 'ipv4' ? {} : { EnableIPv6: true, IPv6Network: 'fd10::/48' }),
    Backend: { Type: 'wireguard', ...backend },
  });
}

const PRIVATE: LeaseAttrs['publicAddresses'] = { ipv4: parseIpv4('10.98.0.12'), ipv6: parseIpv6('fd98::12') };

function lease(attrs: Partial<LeaseAttrs> = {}, stack: 'ipv4' | 'ipv6' | 'dual' = 'dual'): Lease {
  const data = (port: number) => ({ PublicKey: PEER_KEY, Port: port });
  return {
    subnets: {
      ipv4: stack === 'ipv6' ? undefined : parsePrefix4('10.244.4.0/24'),
      ipv6: stack === 'ipv4' ? undefined : parsePrefix6('fd10:0:0:4::/64'),
    },
    attrs: {
      publicAddresses: PRIVATE,
      backendType: 'wireguard',
      backendData: {
        ipv4: stack === 'ipv6' ? undefined : data(51820),
        ipv6: stack === 'ipv4' ? undefined : data(51821),
      },
      ...attrs,
    },
    expiresAtMs: undefined,
  };
}

const OWN: Lease = {
  ...lease(),
  subnets: { ipv4: parsePrefix4('10.244.1.0/24'), ipv6: parsePrefix6('fd10:0:0:1::/64') },
};

function peersOf(backend: Backend, peer: Lease): string[] {
  const part = backend.peer(OWN, peer);
  assert(!isSkipped(part), isSkipped(part) ? part.skipped : '');
  assert.deepEqual([part.kernel.routes, part.kernel.neighbours, part.kernel.fdb], [[], [], []]);
  return (part.kernel.wireguard ?? []).map(
    ({ link, endpoint, allowedIps }) => `${link} ${formatEndpoint(endpoint)} ${allowedIps.map(formatPrefix).join()}`,
  );
}

function devicesOf(backend: Backend): string[] {
  return backend
    .host(OWN)
    .kernel.links.flatMap((link) => (link.kind === 'wireguard' ? `${link.name} ${link.settings.listenPort}` : []));
}

const dataOf = ({ attrs }: Backend) => [attrs.backendData.ipv4, attrs.backendData.ipv6];

describe('wireguard', () => {
  it('separate: a tunnel for each family, by that family', async () => {
    const backend = await openedBackend(netConf('dual'), EXTERNAL);
    assert.deepEqual(devicesOf(backend), ['flannel-wg 51820', 'flannel-wg-v6 51821']);
    assert.deepEqual(dataOf(backend), [
      { PublicKey: FAKE_PUBLIC_KEY, Port: 51820 },
      { PublicKey: FAKE_PUBLIC_KEY, Port: 51821 },
    ]);
    assert.deepEqual(peersOf(backend, lease()), [
      'flannel-wg 10.98.0.12:51820 10.244.4.0/24',
      'flannel-wg-v6 [fd98::12]:51821 fd10:0:0:4::/64',
    ]);
    assert.equal(backend.mtuBytes, 1420);
  });

  for (const [mode, endpoint] of [
    ['ipv4', '10.98.0.12:51820'],
    ['ipv6', '[fd98::12]:51820'],
    ['auto', '10.98.0.12:51820'],
  ]) {
    it(`${mode}: one tunnel for both families`, async () => {
      const backend = await openedBackend(netConf('dual', { Mode: mode }), EXTERNAL);
      assert.deepEqual(devicesOf(backend), ['flannel-wg 51820']);
      // Where the one device listens, so that a flannel in the same mode reaches it.
      assert.deepEqual(
        dataOf(backend).map((data) => (data as { Port: number }).Port),
        [51820, 51820],
      );
      assert.deepEqual(peersOf(backend, lease()), [`flannel-wg ${endpoint} 10.244.4.0/24,fd10:0:0:4::/64`]);
    });
  }

  it('auto: over IPv4 when the peer’s is public, over IPv6 when both have a public one, else over IPv4', async () => {
    const [public4, public6] = [parseIpv4('192.0.2.7'), parseIpv6('2001:db8::7')];
    const conf = netConf('dual', { Mode: 'auto' });
    const here = await openedBackend(conf, EXTERNAL);
    const abroad = await openedBackend(conf, { ...EXTERNAL, addresses: addresses('10.98.0.11', '2001:db8::1') });
    const over = (backend: Backend, attrs: Partial<LeaseAttrs>) => peersOf(backend, lease(attrs))[0]!.split(' ')[1];
    assert.equal(over(abroad, { publicAddresses: { ipv4: public4, ipv6: public6 } }), '192.0.2.7:51820');
    assert.equal(over(abroad, { publicAddresses: { ...PRIVATE, ipv6: public6 } }), '[2001:db8::7]:51820');
    assert.equal(over(here, { publicAddresses: { ...PRIVATE, ipv6: public6 } }), '10.98.0.12:51820');
    assert.equal(over(here, { publicAddresses: { ...PRIVATE, ipv6: undefined } }), '10.98.0.12:51820');
    assert.equal(over(here, { publicAddresses: { ...PRIVATE, ipv4: undefined } }), '[fd98::12]:51820');
    for (const own of ['10.1.2.3', '172.31.0.1', '192.168.0.1']) {
      assert.match(over(abroad, { publicAddresses: { ipv4: parseIpv4(own), ipv6: public6 } })!, /2001/);
    }
    for (const other of ['11.0.0.1', '172.32.0.1', '192.169.0.1']) {
      assert.match(
        over(abroad, { publicAddresses: { ipv4: parseIpv4(other), ipv6: public6 } })!,
        new RegExp(`^${other}`),
      );
    }
  });

  it('reaches a flannel that publishes no port, or the port of a device that it does not have', async () => {
    const separate = await openedBackend(netConf('dual'), EXTERNAL);
    const bare = { PublicKey: PEER_KEY };
    assert.deepEqual(peersOf(separate, lease({ backendData: { ipv4: bare, ipv6: { ...bare, Port: 0 } } })), [
      'flannel-wg 10.98.0.12:51820 10.244.4.0/24',
      'flannel-wg-v6 [fd98::12]:51821 fd10:0:0:4::/64',
    ]);
    const alone = await openedBackend(netConf('ipv6', { Mode: 'ipv6' }), EXTERNAL);
    assert.deepEqual(peersOf(alone, lease({}, 'ipv6')), ['flannel-wg [fd98::12]:51820 fd10:0:0:4::/64']);
    const elsewhere = { PublicKey: PEER_KEY, Port: 4500 };
    assert.deepEqual(peersOf(alone, lease({ backendData: { ipv4: undefined, ipv6: elsewhere } }, 'ipv6')), [
      'flannel-wg [fd98::12]:4500 fd10:0:0:4::/64',
    ]);
  });

  it('hands on ports, MTU, keepalive and pre-shared key, and shows the keys to nobody', async () => {
    const keys = { ListenPort: 4000, ListenPortV6: 4001, MTU: 1400, PersistentKeepaliveInterval: 25, PSK };
    const backend = await openedBackend(netConf('dual', keys), EXTERNAL);
    assert.deepEqual(devicesOf(backend), ['flannel-wg 4000', 'flannel-wg-v6 4001']);
    assert.equal(backend.mtuBytes, 1320);
    const part = backend.peer(OWN, lease());
    assert(!isSkipped(part));
    const [peer] = part.kernel.wireguard ?? [];
    assert.deepEqual([peer?.keepaliveSeconds, peer?.presharedKey?.reveal()], [25, PSK]);
    const text = JSON.stringify([part, backend.host(OWN)], (_, value) =>
      typeof value === 'bigint' ? String(value) : value,
    );
    assert(!text.includes(PSK) && !text.includes(newPrivateKey(FAKE_IDENTITY_HOST.randomBytes)));
  });

  it('takes 0 for the default port, as its peers would not learn another one', async () => {
    const backend = await openedBackend(netConf('dual', { ListenPort: 0, ListenPortV6: 0 }), EXTERNAL);
    assert.deepEqual(devicesOf(backend), ['flannel-wg 51820', 'flannel-wg-v6 51821']);
  });

  it('reaches a peer without a key for one family in the other, and says so', async () => {
    const backend = await openedBackend(netConf('dual', {}), EXTERNAL);
    const part = backend.peer(
      OWN,
      lease({ backendData: { ipv4: { PublicKey: PEER_KEY, Port: 51820 }, ipv6: undefined } }),
    );
    assert(!isSkipped(part));
    assert.deepEqual(
      part.kernel.wireguard?.map(({ link }) => link),
      ['flannel-wg'],
    );
    assert.equal(part.lacks, 'its IPv6 backend data has no usable PublicKey');
  });

  it('lets nothing out in clear while its device is away', async () => {
    for (const mode of ['separate', 'auto']) {
      const { routes } = (await openedBackend(netConf('dual', { Mode: mode }), EXTERNAL)).host(OWN).kernel;
      for (const network of ['10.244.0.0/16', 'fd10::/48']) {
        const [tunnel, guard, ...more] = routes.filter(({ dst }) => formatPrefix(dst) === network);
        assert(tunnel?.type === 'unicast' && /^flannel-wg/.test(tunnel.dev));
        assert.equal(guard?.type, 'blackhole');
        // More than the 1,024 that an IPv6 route without a metric has.
        assert((guard?.metric ?? 0) > 1024 && tunnel.metric === undefined && more.length === 0);
      }
    }
  });

  it('says which peers it cannot use', async () => {
    const reason = async (stack: 'ipv4' | 'dual', keys: object, attrs: Partial<LeaseAttrs>) => {
      const part = (await openedBackend(netConf(stack, keys), EXTERNAL)).peer(OWN, lease(attrs));
      return isSkipped(part) ? part.skipped : undefined;
    };
    for (const data of [
      undefined,
      null,
      'x',
      [],
      {},
      { PublicKey: 7 },
      { PublicKey: PEER_KEY.slice(1) },
      { PublicKey: PSK + PSK },
    ]) {
      assert.equal(
        await reason('ipv4', {}, { backendData: { ipv4: data, ipv6: undefined } }),
        'its IPv4 backend data has no usable PublicKey',
      );
      assert.equal(
        await reason('dual', { Mode: 'auto' }, { backendData: { ipv4: data, ipv6: data } }),
        'its backend data has no usable PublicKey',
      );
    }
    assert.match(
      (await reason('ipv4', {}, { backendData: { ipv4: { publickey: FAKE_PUBLIC_KEY }, ipv6: undefined } }))!,
      /it has this host's key/,
    );
    assert.equal(await reason('ipv4', {}, { backendType: 'vxlan' }), 'its backend is "vxlan", not wireguard');
    assert.equal(
      await reason('dual', { Mode: 'ipv6' }, { publicAddresses: { ...PRIVATE, ipv6: undefined } }),
      'its lease has no public address in IPv6',
    );
  });

  it('refuses a mode for whose packets this host has no address', async () => {
    await assert.rejects(openedBackend(netConf('ipv4', { Mode: 'ipv6' }), EXTERNAL), {
      code: 'WEFT_CONFIG_INVALID',
      message: 'Mode "ipv6" of the wireguard backend needs IPv6, which is off',
    });
    const without6 = { ...EXTERNAL, addresses: addresses('10.98.0.11'), publicAddresses: addresses('10.98.0.11') };
    await assert.rejects(openedBackend(netConf('dual'), without6), { code: 'WEFT_INTERFACE_NOT_FOUND' });
    assert.deepEqual(devicesOf(await openedBackend(netConf('dual', { Mode: 'ipv4' }), without6)), ['flannel-wg 51820']);
  });
});

describe('keys of WireGuard', () => {
  it('are read from flannel’s file, with or without an end of line', () => {
    // wg genkey, and what wg pubkey makes of it.
    const text = 'OB+YkT7DpUDB/wITVf+12ZBu0xHXRvNcI4zgnbkRYEs=';
    const known = keyPairOf({ path: 'wgkey', text: `${text}\n` });
    assert.equal(known.privateKey.reveal(), text);
    assert.deepEqual(keyPairOf({ path: 'wgkey', text }).publicKey, known.publicKey);
    assert.equal(
      keyPairOf({ path: 'x', text: newPrivateKey(FAKE_IDENTITY_HOST.randomBytes) }).publicKey,
      FAKE_PUBLIC_KEY,
    );
  });

  it('are refused when they are none, without saying what is there instead', () => {
    for (const text of ['', 'secret words', PEER_KEY.slice(0, -1), `${PEER_KEY}x`]) {
      assert.throws(() => keyPairOf({ path: '/run/flannel/wgkey', text }), {
        code: 'WEFT_KEY_FILE',
        message: '/run/flannel/wgkey does not hold a WireGuard key: 32 bytes in base64 are expected',
      });
    }
    // The last character has two bits that no byte has.
    assert.equal(parseWireguardKey(PEER_KEY.replace('8=', '9=')), undefined);
  });
});
