import assert from 'node:assert/strict';
import { it } from 'node:test';
import { linkTypeOfKind } from './packet-socket.ts';

it('frames of each device of an overlay can be read, whatever its backend', () => {
  // As /sys/class/net/DEVICE/type has them; the last is Infiniband.
  const kinds = {
    eth0: 1,
    'flannel.1': 1,
    cni0: 1,
    flannel0: 65_534,
    'flannel-wg': 65_534,
    'flannel.ipip': 768,
    ib0: 32,
  };
  assert.deepEqual(Object.fromEntries(Object.entries(kinds).map(([device, kind]) => [device, linkTypeOfKind(kind)])), {
    ...{ eth0: 'ethernet', 'flannel.1': 'ethernet', cni0: 'ethernet' },
    ...{ flannel0: 'raw', 'flannel-wg': 'raw', 'flannel.ipip': 'raw', ib0: 'unsupported' },
  });
});
