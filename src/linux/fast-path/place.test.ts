import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ipv4Of } from '../../ip/ipv4.ts';
import type { DeviceFacts } from '../ethtool.ts';
import { describePlace, type Place, type WayIn, wayInOf } from './place.ts';

const CARD: DeviceFacts = {
  ...{ index: 2, isEthernet: true, macAddress: [2, 0, 0, 0, 0, 1], mtuBytes: 1_500, driver: 'ixgbe' },
  features: new Set(['tx-tcp-segmentation', 'rx-gro', 'rx-checksum']),
};
const XDP: WayIn = { type: 'xdp', ownMac: CARD.macAddress };
const withFeatures = (...features: readonly string[]): DeviceFacts => ({
  ...CARD,
  features: new Set([...CARD.features, ...features]),
});

describe('whether XDP takes what peers send', () => {
  it('auto: with drivers on the list, and no word of others', () => {
    for (const driver of ['bnxt_en', 'i40e', 'ice', 'igb', 'igc', 'ixgbe', 'mlx4_en', 'mlx5_core'])
      assert.deepEqual(wayInOf({ ...CARD, driver }, 'eth0', 'auto'), XDP, driver);
    for (const driver of ['veth', 'virtio_net', 'ena', 'gve', 'hv_netvsc', 'nfp', 'e1000e', ''])
      assert.deepEqual(wayInOf({ ...CARD, driver }, 'eth0', 'auto'), { type: 'tcx', obstacle: undefined }, driver);
  });

  it('xdp: with any driver; off: with none', () => {
    assert.deepEqual(wayInOf({ ...CARD, driver: 'veth' }, 'eth0', 'xdp'), XDP);
    assert.deepEqual(wayInOf(CARD, 'eth0', 'off'), { type: 'tcx', obstacle: undefined });
  });

  it('not where a frame does not fit into a page', () => {
    assert.deepEqual(wayInOf({ ...CARD, mtuBytes: 3_400 }, 'eth0', 'auto'), XDP);
    for (const mode of ['auto', 'xdp'] as const) {
      const { type, ...rest } = wayInOf({ ...CARD, mtuBytes: 9_000 }, 'eth0', mode);
      assert.deepEqual([type, rest], ['tcx', { obstacle: 'the MTU of eth0 is 9000, and XDP takes 3400 at most' }]);
    }
  });

  it('not where the card joins datagrams, and says which command ends that', () => {
    for (const mode of ['auto', 'xdp'] as const) {
      for (const [facts, obstacle] of [
        [withFeatures('rx-lro'), 'eth0 has rx-lro on (ethtool -K eth0 rx-lro off)'],
        [withFeatures('rx-gro-hw'), 'eth0 has rx-gro-hw on (ethtool -K eth0 rx-gro-hw off)'],
        [withFeatures('rx-gro-hw', 'rx-lro'), 'eth0 has rx-lro and rx-gro-hw on (ethtool -K eth0 rx-lro off)'],
      ] as const)
        assert.deepEqual(wayInOf(facts, 'eth0', mode), { type: 'tcx', obstacle });
    }
  });

  it('is in the log, with what is in its way', () => {
    const place: Place = {
      ...{ ownAddress: ipv4Of(1), ownPort: 8285, tunIndex: 3, underlayName: 'eth0', underlayIndex: 2 },
      ...{ segmentation: 'host', carriesIpv6: false, wayIn: XDP },
    };
    const outbound = 'outbound through eth0, where this host segments super-packets';
    assert.equal(describePlace(place, undefined), `${outbound}, and XDP takes what eth0 receives from peers`);
    assert.equal(describePlace(place, 'EBUSY'), `${outbound}, without XDP on the way in: EBUSY`);
    const described = (wayIn: WayIn): string => describePlace({ ...place, wayIn }, undefined);
    assert.equal(described({ type: 'tcx', obstacle: undefined }), outbound);
    assert.equal(described({ type: 'tcx', obstacle: 'LRO' }), `${outbound}, without XDP on the way in: LRO`);
  });
});
