import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type IpAddr, parseAddr } from '../../ip/address.ts';
import { Introduction } from './introduction.ts';

const [A, B] = ['192.0.2.1', '192.0.2.2'].map((text) => parseAddr(text)!) as [IpAddr, IpAddr];
const SECOND = 1_000_000_000n;

it('is over when all peers that are known have answered, or after ten seconds', () => {
  const answered = new Set<IpAddr>();
  const asked: IpAddr[] = [];
  const tables = { isPublished: false, hosts: () => [A, B] };
  let now = 100n * SECOND;
  const begin = (): Introduction =>
    new Introduction({
      tables,
      exchange: {
        introduce: (host) => {
          asked.push(host);
          return answered.has(host);
        },
      },
      now: () => now,
    });
  const patient = begin();
  now += 60n * SECOND;
  assert.equal(patient.isOver(), false, 'nobody is known yet');
  assert.deepEqual(asked, []);
  tables.isPublished = true;
  answered.add(A);
  assert.equal(patient.isOver(), false);
  assert.deepEqual(asked, [A, B]);
  now += 10n * SECOND - 1n;
  assert.equal(patient.isOver(), false);
  now += 1n;
  assert.equal(patient.isOver(), true);

  answered.add(B);
  assert.equal(begin().isOver(), true);
});
