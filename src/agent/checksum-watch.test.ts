import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ChecksumProbe } from '../desired/checksum-probe.ts';
import { formatAddr, parseAddr } from '../ip/address.ts';
import { parseMac } from '../ip/mac.ts';
import type { LeaseKey } from '../lease/lease.ts';
import { ChecksumWatch } from './checksum-watch.ts';

const addr = (text: string) => parseAddr(text) ?? assert.fail(text);
const LINKS = [{ link: 'flannel.1', from: addr('10.244.1.0') }];

/** Probes answered by `answer`, until `done` says that enough was asked. */
async function watch(
  answer: (probe: ChecksumProbe, asked: number) => boolean | undefined,
  done: (asked: number) => boolean,
  peers: readonly number[] = [2],
) {
  const asked: string[] = [];
  const said: string[] = [];
  const { promise: enough, resolve } = Promise.withResolvers<void>();
  const watching = new ChecksumWatch({
    probe: async (probe) => {
      asked.push(`${formatAddr(probe.to)} ${probe.by}`);
      const answered = answer(probe, asked.length);
      if (done(asked.length)) setImmediate(resolve);
      return answered;
    },
    onBroken: () => said.push('broken'),
    log: { info: (text) => said.push(text), warn: (text) => said.push(text) },
    timing: { answerMs: 1, retryMs: 1 },
  });
  const peer = (n: number) =>
    watching.setPeer(`10.244.${n}.0-24` as LeaseKey, [
      { link: 'flannel.1', addr: addr(`10.244.${n}.0`), mac: parseMac('02:00:00:00:00:02')! },
    ]);
  for (const one of peers) peer(one);
  assert.deepEqual(asked, [], 'no link is to be probed yet');
  watching.set(LINKS, 'eth0');
  return { asked, said, enough, watching, peer };
}

describe('ChecksumWatch', () => {
  it('asks one peer once where checksums arrive, and nobody again until the interface is another one', async () => {
    const { asked, said, enough, watching, peer } = await watch(
      () => true,
      (n) => n === 1,
    );
    await enough;
    peer(3);
    watching.set(LINKS, 'eth0');
    await new Promise(setImmediate);
    assert.deepEqual(asked, ['10.244.2.0 device']);
    assert.match(said.join(), /^Checksum offload works on flannel\.1/);
    assert.deepEqual([...watching.broken], []);
    watching.set(LINKS, 'eth1');
    await new Promise(setImmediate);
    assert.equal(asked.length, 2);
    await watching[Symbol.asyncDispose]();
  });

  it('believes that they do not after three times, each with the other one answered', async () => {
    const { asked, said, enough, watching } = await watch(
      ({ by }) => by === 'kernel',
      (n) => n === 6,
    );
    await enough;
    assert.deepEqual(asked, Array(3).fill(['10.244.2.0 device', '10.244.2.0 kernel']).flat());
    assert.deepEqual([...watching.broken], ['flannel.1']);
    assert.equal(said.at(-1), 'broken');
    await watching[Symbol.asyncDispose]();
  });

  it('believes two peers, and not one alone where another one answers', async () => {
    const alone = await watch(
      ({ to, by }) => by === 'kernel' || formatAddr(to) !== '10.244.2.0',
      (n) => n === 7,
      [2, 3, 4],
    );
    await alone.enough;
    assert.deepEqual(alone.asked.slice(6), ['10.244.3.0 device']);
    assert.deepEqual([...alone.watching.broken], []);
    assert.match(alone.said.join(), /^Checksum offload works on flannel\.1/);
    await alone.watching[Symbol.asyncDispose]();

    const two = await watch(
      ({ by }) => by === 'kernel',
      (n) => n === 12,
      [2, 3, 4],
    );
    await two.enough;
    assert.deepEqual([...two.watching.broken], ['flannel.1']);
    assert.match(two.said.join(), /10\.244\.2\.0 and 10\.244\.3\.0 answer only if this host computes/);
    assert.equal(two.asked.length, 12);
    await two.watching[Symbol.asyncDispose]();
  });

  it('draws no conclusion from a peer that answers nothing, or from one loss, and asks others', async () => {
    const silent = await watch(
      () => false,
      (n) => n === 8,
    );
    silent.peer(3);
    await silent.enough;
    assert.deepEqual(
      silent.asked.slice(0, 6),
      ['2', '2', '3', '3', '2', '2'].map((n, i) => `10.244.${n}.0 ${i % 2 ? 'kernel' : 'device'}`),
    );
    assert.deepEqual([...silent.watching.broken], []);
    await silent.watching[Symbol.asyncDispose]();

    const lossy = await watch(
      ({ by }, asked) => by === 'kernel' || asked === 5,
      (n) => n === 5,
    );
    await lossy.enough;
    assert.deepEqual([...lossy.watching.broken], []);
    assert.match(lossy.said.join(), /Checksum offload works/);
    await lossy.watching[Symbol.asyncDispose]();
  });

  it('asks nobody when it is told to stop', async () => {
    const { asked, enough, watching } = await watch(
      () => undefined,
      (n) => n === 2,
    );
    await enough;
    await watching[Symbol.asyncDispose]();
    const before = asked.length;
    watching.set(LINKS, 'eth1');
    assert.equal(asked.length, before);
  });
});
