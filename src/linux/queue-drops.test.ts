import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readDeviceDrops, readSocketDrops, socketDrops } from './queue-drops.ts';

const TABLE = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  112: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 9
  345: 014DA8C0:205D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 1234
`;

describe('queue drops', () => {
  it('of a socket are those of its port', () => {
    assert.equal(socketDrops(TABLE, 8285), 1_234);
    assert.equal(socketDrops(TABLE, 53), 9);
    assert.equal(socketDrops(TABLE, 8472), undefined);
    assert.equal(socketDrops('', 8285), undefined);
  });

  it('of what is not there are left out', () => {
    assert.deepEqual([readDeviceDrops('no-such-dev0'), readSocketDrops(1)], [undefined, undefined]);
  });

  it('of a device are what the kernel counts', () => {
    assert.equal(typeof readDeviceDrops('lo'), 'number');
  });
});
