import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FAKE_IDENTITY_HOST, openedBackend } from '../../test/fakes/backends.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import { eventually } from '../../test/netns/waiting.ts';
import { type ExternalInterface, NO_PEER_STATE } from '../backend/backend.ts';
import { backendKind, backendKinds, backendsBeside, configuredBackend, identifyBackend } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { PeerSlots } from '../dataplane/peer-slots.ts';
import type { Forwarder } from '../dataplane/supervisor.ts';
import { mergedStates } from '../desired/merged-states.ts';
import { describeRoute } from '../desired/state.ts';
import { perFamily } from '../ip/family.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import { OtherBackends } from './other-backends.ts';

const netConf = (backend: object): string => JSON.stringify({ Network: '10.244.0.0/16', Backend: backend });
const configOf = (backend: object) =>
  parseNetConf(netConf(backend), { source: 'test', validation: 'full', backends: backendKind });

const EXTERNAL: ExternalInterface = {
  ...{ name: 'eth0', mtuBytes: 1500, onLink: [parsePrefix4('192.168.77.0/24')!] },
  ...{ addresses: addresses('192.168.77.1'), publicAddresses: addresses('192.168.77.1') },
};

const lease = (host: number, backendType: string): Lease => ({
  subnets: { ipv4: parsePrefix4(`10.244.${host}.0/24`), ipv6: undefined },
  attrs: {
    ...{ publicAddresses: { ipv4: parseIpv4(`192.168.77.${host}`), ipv6: undefined } },
    ...{ backendType, backendData: { ipv4: undefined, ipv6: undefined } },
  },
  expiresAtMs: undefined,
});

/** A host with vxlan, whose forwarder opens or not. */
function besideVxlan(forwarder: Partial<Forwarder>) {
  const config = configOf({ Type: 'vxlan' });
  const lines: string[] = [];
  const said = (text: string) => void lines.push(text);
  const changed = Promise.withResolvers<void>();
  const others = new OtherBackends({
    candidates: backendsBeside(configuredBackend(config), configOf({ Type: 'udp', Port: 9000 })),
    config,
    identify: (beside, signal) => {
      const past = { published: perFamily(() => undefined), networks: [] };
      return identifyBackend(beside, config, past, FAKE_IDENTITY_HOST, signal);
    },
    forwarder: () =>
      ({
        prepare() {},
        start: async () => {},
        publish() {},
        ...forwarder,
        [Symbol.asyncDispose]: async () => {},
      }) as unknown as Forwarder,
    slots: new PeerSlots(8),
    onChanged: changed.resolve,
    log: { info: said, error: said },
  });
  return { others, lines, changed: changed.promise };
}

test('peers of another backend are reached in its way, with the settings from before, until the last has gone', async () => {
  const published: unknown[] = [];
  const { others, lines, changed } = besideVxlan({ publish: (content) => void published.push(content.peers) });
  const own = lease(1, 'vxlan');
  others.serve(own, EXTERNAL, new Set(['']));
  assert.deepEqual(others.hostStates(own), [], 'nothing is programmed before it is open');
  assert.equal(others.forwarder, undefined);
  await changed;
  assert.ok(others.forwarder !== undefined, 'its packets are counted');
  const part = others.peer(own, lease(2, ''));
  assert.ok(part !== undefined && 'kernel' in part);
  assert.equal(part.forward?.port, 9000);
  others.setForward('10.244.2.0-24' as never, '', part);
  others.publish();
  assert.equal((published.at(-1) as unknown[]).length, 1);
  const vxlan = await openedBackend(netConf({ Type: 'vxlan' }), EXTERNAL);
  const state = mergedStates(vxlan.host(own).kernel, others.hostStates(own));
  assert.deepEqual(
    state.links.map(({ name }) => name),
    ['eth0', 'flannel.1', 'flannel0'],
  );
  assert.ok(state.routes.some((route) => /^10\.244\.0\.0\/16 dev flannel0/.test(describeRoute(route))));
  const former = [{ name: 'flannel0', kind: 'tun' }] as const;
  assert.deepEqual(others.unneeded(former, ['flannel0']), [], 'its device stays while it is needed');

  others.serve(own, EXTERNAL, new Set());
  assert.deepEqual(others.hostStates(own), []);
  assert.equal(others.forwarder, undefined);
  assert.deepEqual(others.unneeded([], []), former, 'its device goes');
  assert.match(lines[0]!, /Some peers use the backend udp/);
  assert.equal(lines.at(-1), 'No peer uses the backend udp any longer');
  await others[Symbol.asyncDispose]();
});

test('what cannot be opened is said, and costs those peers alone', async () => {
  const asked = Promise.withResolvers<void>();
  const { others, lines } = besideVxlan({
    prepare: () => {
      asked.resolve();
      throw new Error('open /dev/net/tun: ENOENT');
    },
  });
  const own = lease(1, 'vxlan');
  others.serve(own, EXTERNAL, new Set(['', 'host-gw']));
  assert.deepEqual(others.peer(own, lease(2, '')), { kernel: NO_PEER_STATE }, 'nothing is said before it was tried');
  await asked.promise;
  await eventually('the failure is known', () => lines.some((line) => line.includes('ENOENT')));
  assert.deepEqual(others.peer(own, lease(2, '')), {
    skipped: 'its backend is udp, which could not be opened on this host: open /dev/net/tun: ENOENT',
  });
  assert.equal(others.peer(own, lease(4, 'ipip')), undefined);
  assert.match(lines.join('\n'), /Cannot reach peers with the backend udp: open \/dev\/net\/tun: ENOENT/);
  const direct = others.peer(own, lease(3, 'host-gw'));
  assert.ok(direct !== undefined && 'kernel' in direct);
  assert.deepEqual(direct.kernel.routes.map(describeRoute), ['10.244.3.0/24 via 192.168.77.3 dev eth0']);
  await others[Symbol.asyncDispose]();
});

test('no other backend stands beside one that encrypts, or one that looks at nobody’s type', () => {
  for (const { type } of backendKinds()) {
    const candidates = backendsBeside(configuredBackend(configOf({ Type: type })), undefined);
    const expected = { vxlan: ['', 'host-gw'], 'host-gw': ['', 'vxlan'] };
    assert.deepEqual([...candidates.keys()].sort(), new Map(Object.entries(expected)).get(type) ?? [], type);
  }
});
