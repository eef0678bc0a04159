import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeKernel } from '../../../test/fakes/fake-kernel.ts';
import { eventually } from '../../../test/netns/waiting.ts';
import { parseAddr, parsePrefix } from '../../ip/address.ts';
import { Secret } from '../../secret.ts';
import { describeOp, type Op } from '../op.ts';
import { Reconciler } from '../reconciler.ts';
import { EMPTY_WANTED_STATE, type WantedState, type WireguardKey, type WireguardPeer } from '../state.ts';

const key = (letter: string): WireguardKey => `${letter.repeat(42)}A=` as WireguardKey;
const PRIVATE = new Secret(key('p'));
const PSK = new Secret(key('s'));

const HOST: WantedState = {
  ...EMPTY_WANTED_STATE,
  links: [
    {
      ...{ kind: 'wireguard', name: 'flannel-wg', mtuBytes: 1420 },
      settings: { privateKey: PRIVATE, publicKey: key('o'), listenPort: 51820 },
    },
  ],
  routes: [
    {
      ...{ type: 'unicast', dst: parsePrefix('10.244.0.0/16')!, dev: 'flannel-wg', via: undefined, onlink: false },
      ...{ scope: 'link', metric: undefined },
    },
  ],
};

function peer(letter: string, host: number, change: Partial<WireguardPeer> = {}): WireguardPeer {
  return {
    link: 'flannel-wg',
    publicKey: key(letter),
    endpoint: { addr: parseAddr(`192.168.77.${host}`)!, port: 51820 },
    allowedIps: [parsePrefix(`10.244.${host}.0/24`)!],
    keepaliveSeconds: 0,
    presharedKey: undefined,
    ...change,
  };
}

const part = (...wireguard: WireguardPeer[]) => ({ routes: [], neighbours: [], fdb: [], wireguard });

/** A kernel and who keeps it; `did` is what was done since it was last asked. */
async function open(...peers: WireguardPeer[]) {
  const kernel = new FakeKernel();
  const reconciler = new Reconciler({ kernel, debounceMs: 0, echoMs: 0, resyncMs: 3_600_000 });
  reconciler.set(HOST);
  for (const [i, one] of peers.entries()) reconciler.setPeer(`peer${i}`, part(one));
  await reconciler.idle();
  return {
    kernel,
    reconciler,
    async did(): Promise<string[]> {
      await reconciler.idle();
      return kernel.applied.splice(0).map(describeOp);
    },
    /** Somebody else changes the kernel, and the reconciler sees it. */
    async byHand(op?: Op): Promise<void> {
      const { reads } = kernel;
      if (op === undefined) kernel.notify();
      else kernel.byHand(op);
      await eventually('it looks at the kernel', () => kernel.reads !== reads);
    },
    [Symbol.asyncDispose]: () => reconciler[Symbol.asyncDispose](),
  };
}

describe('WireGuard devices', () => {
  it('get their key and peers before a route leads into them, and once', async () => {
    await using host = await open(peer('a', 2), peer('b', 3));
    assert.deepEqual(await host.did(), [
      'add link flannel-wg (wireguard)',
      'set key and port 51820 of flannel-wg',
      `set peer ${key('a')} of flannel-wg, 192.168.77.2:51820, for 10.244.2.0/24`,
      `set peer ${key('b')} of flannel-wg, 192.168.77.3:51820, for 10.244.3.0/24`,
      'add route 10.244.0.0/16 dev flannel-wg',
    ]);
    await host.byHand();
    assert.deepEqual(await host.did(), []);
  });

  it('that go come back with all they had', async () => {
    await using host = await open(peer('a', 2, { presharedKey: PSK, keepaliveSeconds: 25 }));
    const first = await host.did();
    await host.byHand({ type: 'link-delete', name: 'flannel-wg' });
    assert.deepEqual(await host.did(), first);
    assert.equal(host.reconciler.stats().repairs['wireguard-peer-set'], 1);
  });

  it('get back a key, a port and peers that somebody has changed, and lose those that nobody wants', async () => {
    await using host = await open(peer('a', 2), peer('b', 3));
    await host.did();
    await host.byHand({ type: 'wireguard-peer-delete', link: 'flannel-wg', publicKey: key('b') });
    assert.deepEqual(await host.did(), [`set peer ${key('b')} of flannel-wg, 192.168.77.3:51820, for 10.244.3.0/24`]);
    await host.byHand({ type: 'wireguard-peer-set', peer: peer('x', 9) });
    assert.deepEqual(await host.did(), [`delete peer ${key('x')} of flannel-wg`]);
    for (const change of [
      { allowedIps: [parsePrefix('0.0.0.0/0')!] },
      { presharedKey: PSK },
      { keepaliveSeconds: 1 },
    ]) {
      await host.byHand({ type: 'wireguard-peer-set', peer: peer('a', 2, change) });
      assert.equal((await host.did())[0], `set peer ${key('a')} of flannel-wg, 192.168.77.2:51820, for 10.244.2.0/24`);
    }
    for (const change of [{ publicKey: key('q') }, { listenPort: 1 }]) {
      const settings = { privateKey: PRIVATE, publicKey: key('o'), listenPort: 51820, ...change };
      await host.byHand({ type: 'wireguard-set', link: 'flannel-wg', settings });
      assert.deepEqual(await host.did(), ['set key and port 51820 of flannel-wg']);
    }
  });

  it('keep the address that a peer is heard from, until its lease says another one', async () => {
    await using host = await open(peer('a', 2));
    await host.did();
    const roamed = peer('a', 2, { endpoint: { addr: parseAddr('203.0.113.9')!, port: 4242 } });
    await host.byHand({ type: 'wireguard-peer-set', peer: roamed });
    assert.deepEqual(await host.did(), []);
    host.reconciler.setPeer(
      'peer0',
      part(peer('a', 2, { endpoint: { addr: parseAddr('192.168.77.8')!, port: 51820 } })),
    );
    assert.deepEqual(await host.did(), [`set peer ${key('a')} of flannel-wg, 192.168.77.8:51820, for 10.244.2.0/24`]);
  });

  it('take a host’s new key before they forget the old one', async () => {
    await using host = await open(peer('a', 2));
    await host.did();
    host.reconciler.setPeer('peer0', part(peer('n', 2)));
    assert.deepEqual(await host.did(), [
      `set peer ${key('n')} of flannel-wg, 192.168.77.2:51820, for 10.244.2.0/24`,
      `delete peer ${key('a')} of flannel-wg`,
    ]);
    host.reconciler.setPeer('peer0', undefined);
    assert.deepEqual(await host.did(), [`delete peer ${key('n')} of flannel-wg`]);
  });

  it('give a key to the first of two hosts, and say so', async () => {
    await using host = await open(peer('a', 2), peer('a', 3));
    assert.equal((await host.did()).filter((line) => line.startsWith('set peer')).length, 1);
    assert.deepEqual(
      host.reconciler.stats().problems.map(({ type }) => type),
      ['key-twice'],
    );
    assert.equal(host.reconciler.failure, undefined);
    host.reconciler.setPeer('peer0', undefined);
    assert.deepEqual(await host.did(), [`set peer ${key('a')} of flannel-wg, 192.168.77.3:51820, for 10.244.3.0/24`]);
  });

  it('without a key are a failure of the host', async () => {
    const kernel = new FakeKernel();
    kernel.refuse = ({ type }) => (type === 'wireguard-set' ? 'could not run wg' : undefined);
    await using reconciler = new Reconciler({ kernel, backoffMs: 3_600_000, maxBackoffMs: 3_600_000 });
    reconciler.set(HOST);
    await reconciler.idle();
    assert.equal(reconciler.failure, 'set key and port 51820 of flannel-wg: could not run wg');
  });
});
