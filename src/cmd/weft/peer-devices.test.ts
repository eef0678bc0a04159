import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PeerPart } from '../../backend/backend.ts';
import type { Route } from '../../desired/state.ts';
import { formatPrefix, parsePrefix } from '../../ip/address.ts';
import { parsePrefix4, parsePrefix6 } from '../../ip/prefix.ts';
import { peerDevices } from './peer-devices.ts';

const route = (dst: string, dev: string): Route => ({
  ...{ type: 'unicast', dst: parsePrefix(dst)!, dev, metric: undefined },
  ...{ via: undefined, onlink: false, scope: 'link' },
});
const devices = (hostRoutes: readonly Route[], part: Pick<PeerPart, 'kernel' | 'forward'>): string[] =>
  peerDevices(hostRoutes, part).map(([subnet, device]) => `${formatPrefix(subnet)} ${device}`);
const NOTHING: PeerPart['kernel'] = { routes: [], neighbours: [], fdb: [], policies: [] };

describe('the devices to a peer', () => {
  it('are those of the forwarder’s route of each family in which it sends to the peer', () => {
    const routes = [route('10.244.0.0/16', 'flannel0'), route('fd10::/48', 'flannel0')];
    const subnets = { ipv4: parsePrefix4('10.244.8.0/24'), ipv6: parsePrefix6('fd10:0:0:8::/64') };
    const to = (families: typeof subnets): string[] =>
      devices(routes, {
        kernel: NOTHING,
        forward: { subnets: families, publicAddresses: { ipv4: undefined, ipv6: undefined }, port: 8285 },
      });
    assert.deepEqual(to(subnets), ['10.244.8.0/24 flannel0', 'fd10:0:0:8::/64 flannel0']);
    assert.deepEqual(to({ ...subnets, ipv6: undefined }), ['10.244.8.0/24 flannel0']);
  });

  it('are those of the peer’s own routes', () => {
    const own = [route('10.244.8.0/24', 'flannel.1'), route('fd10:0:0:8::/64', 'flannel-v6.1')];
    assert.deepEqual(devices([route('10.244.0.0/16', 'flannel0')], { kernel: { ...NOTHING, routes: own } }), [
      '10.244.8.0/24 flannel.1',
      'fd10:0:0:8::/64 flannel-v6.1',
    ]);
  });
});
