import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openedBackend } from '../../test/fakes/backends.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import type { Backend, ExternalInterface } from '../backend/backend.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import { OwnAnswers } from './own-answers.ts';

const EXTERNAL: ExternalInterface = {
  ...{ name: 'eth0', mtuBytes: 1500, onLink: [parsePrefix4('192.168.77.0/24')!] },
  ...{ addresses: addresses('192.168.77.1'), publicAddresses: addresses('192.168.77.1') },
};

const opened = (type: string): Promise<Backend> =>
  openedBackend(JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: type } }), EXTERNAL);

const lease = (host: number, backendType: string): Lease => ({
  subnets: { ipv4: parsePrefix4(`10.244.${host}.0/24`), ipv6: undefined },
  attrs: {
    ...{ publicAddresses: addresses(`192.168.77.${host}`) },
    ...{ backendType, backendData: { ipv4: undefined, ipv6: undefined } },
  },
  expiresAtMs: undefined,
});

test('whose peer one is goes by its type, where the own backend looks at that', async () => {
  const own = lease(1, '');
  const [udp, hostGw] = [await opened('udp'), await opened('host-gw')];
  assert.equal(new OwnAnswers(udp, own).isForAnother(lease(2, 'vxlan')), false);
  const answers = new OwnAnswers(hostGw, own);
  assert.equal(answers.isForAnother(lease(2, 'vxlan')), true);
  assert.equal(answers.isForAnother(lease(2, 'host-gw')), false);
});

test('the own backend is asked once for a lease of another type', async () => {
  const hostGw = await opened('host-gw');
  const asked: Lease[] = [];
  const counting: Backend = {
    ...hostGw,
    peer: (own, peer) => {
      asked.push(peer);
      return hostGw.peer(own, peer);
    },
  };
  const answers = new OwnAnswers(counting, lease(1, 'host-gw'));
  const [first, changed] = [lease(2, 'vxlan'), lease(2, 'vxlan')];
  for (const peer of [first, first, changed]) {
    assert.equal(answers.isForAnother(peer), true);
    assert.ok('skipped' in answers.of(peer));
  }
  assert.deepEqual(asked, [first, changed]);
});
