import assert from 'node:assert/strict';
import { it } from 'node:test';
import { formatEndpoint, formatPrefix } from '../ip/address.ts';
import { parseDump } from './wireguard.ts';

it('reads what `wg show DEVICE dump` prints', () => {
  const key = (letter: string): string => `${letter.repeat(42)}A=`;
  const device = parseDump(
    'flannel-wg',
    [
      [key('p'), key('o'), '51820', 'off'],
      [key('a'), '(none)', '10.98.0.12:51820', '10.244.4.0/24,fd10:0:0:4::/64', '1764300000', '148', '212', 'off'],
      [key('b'), key('s'), '[fd98::12]:51821', '(none)', '0', '0', '0', '25'],
      [key('c'), '(none)', '(none)', '10.244.5.0/24', '0', '0', '0', 'off'],
    ]
      .map((columns) => `${columns.join('\t')}\n`)
      .join(''),
  );
  assert.deepEqual([device.link, device.publicKey, device.listenPort], ['flannel-wg', key('o'), 51820]);
  const peers = device.peers.map((peer) => ({
    ...peer,
    endpoint: peer.endpoint && formatEndpoint(peer.endpoint),
    allowedIps: peer.allowedIps.map(formatPrefix),
    presharedKey: peer.presharedKey?.reveal(),
  }));
  const silent = { link: 'flannel-wg', lastHandshakeAtMs: undefined, receivedBytes: 0, sentBytes: 0 };
  assert.deepEqual(peers, [
    {
      ...{ link: 'flannel-wg', publicKey: key('a'), presharedKey: undefined, endpoint: '10.98.0.12:51820' },
      ...{ allowedIps: ['10.244.4.0/24', 'fd10:0:0:4::/64'], keepaliveSeconds: 0 },
      ...{ lastHandshakeAtMs: 1_764_300_000_000, receivedBytes: 148, sentBytes: 212 },
    },
    {
      ...{ ...silent, publicKey: key('b'), presharedKey: key('s'), endpoint: '[fd98::12]:51821' },
      ...{ allowedIps: [], keepaliveSeconds: 25 },
    },
    {
      ...{ ...silent, publicKey: key('c'), presharedKey: undefined, endpoint: undefined },
      ...{ allowedIps: ['10.244.5.0/24'], keepaliveSeconds: 0 },
    },
  ]);
  assert.equal(parseDump('flannel-wg', '(none)\t(none)\t0\toff\n').publicKey, undefined);
});
