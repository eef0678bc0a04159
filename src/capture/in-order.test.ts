import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InOrder } from './in-order.ts';

const at = (...times: number[]) => times.map((time) => ({ timeNs: BigInt(time) }));
const whole = (...times: number[]) => ({ frames: at(...times), isCut: false });
const cut = (...times: number[]) => ({ frames: at(...times), isCut: true });

describe('frames of several sockets', () => {
  it('are in the order of time, also one that came after its socket had been read', () => {
    const order = new InOrder();
    // The first socket was read at 10; 11 came to it while the second, with 12, was read.
    assert.deepEqual(order.round(10n, [whole(7, 9), whole(8, 12)]), at(7, 8, 9));
    assert.deepEqual(order.round(20n, [whole(11), whole()]), at(11, 12));
    assert.deepEqual(order.rest(), []);
  });

  it('wait for those of a socket that was not read to its end', () => {
    const order = new InOrder();
    assert.deepEqual(order.round(100n, [cut(1, 2), whole(3, 4)]), at(1, 2));
    assert.deepEqual(order.round(100n, [whole(3, 5), whole()]), at(3, 3, 4, 5));
  });

  it('are all there at the end', () => {
    const order = new InOrder();
    order.round(1n, [whole(5), whole(4)]);
    assert.deepEqual(order.rest(), at(4, 5));
    assert.deepEqual(order.rest(), []);
  });
});
