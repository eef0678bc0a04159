import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAddr } from '../../ip/address.ts';
import { linkKind, readLinkKind } from './table.ts';

describe('link kinds', () => {
  it('read what the kernel says of each', () => {
    assert.deepEqual(readLinkKind('tun', { type: 'tun' }), { kind: 'tun', settings: undefined });
    assert.deepEqual(readLinkKind('tun', { type: 'tap' }), { kind: 'other', settings: undefined });
    assert.deepEqual(readLinkKind('veth', {}), { kind: 'other', settings: undefined });
    assert.deepEqual(readLinkKind(undefined, {}), { kind: 'other', settings: undefined });
    assert.deepEqual(readLinkKind('wireguard', {}), { kind: 'wireguard', settings: undefined });
    assert.deepEqual(readLinkKind('ipip', { remote: 'any', local: '10.98.0.11' }), {
      kind: 'ipip',
      settings: { local: parseAddr('10.98.0.11'), remote: undefined },
    });
  });

  it('read a vxlan device as every version of iproute2 prints it', () => {
    const data = { id: 1, local: '10.98.0.11', link: 'eth0', port: 4789 };
    const settings = { vni: 1, underlay: 'eth0', local: parseAddr('10.98.0.11'), port: 4789 };
    for (const [printed, learning, gbp] of [
      [{ learning: true, gbp: null }, true, true],
      [{ learning: false, gbp: true }, false, true],
      [{ learning: false }, false, false],
      [{ learning: false, gbp: false }, false, false],
    ] as const) {
      const read = readLinkKind('vxlan', { ...data, ...printed });
      assert.deepEqual(read, { kind: 'vxlan', settings: { ...settings, learning, gbp } }, JSON.stringify(printed));
    }
    const kind = linkKind('vxlan');
    const wanted = { ...settings, local: parseAddr('10.98.0.11')!, learning: true, gbp: true };
    const found = readLinkKind('vxlan', { ...data, learning: true, gbp: null });
    assert.ok(found.kind === 'vxlan');
    const link = { kind: 'vxlan', name: 'flannel.1', mtuBytes: 1450, mac: undefined, settings: wanted } as const;
    assert.equal(kind.suits(link, found.settings), true);
    assert.deepEqual(kind.create(link).slice(-4), ['dstport', '4789', 'learning', 'gbp']);
  });

  it('use an ipip device only with the wanted source and any remote end', () => {
    const kind = linkKind('ipip');
    const local = parseAddr('10.98.0.11')!;
    const wanted = { kind: 'ipip', name: 'flannel.ipip', mtuBytes: 1480, settings: { local } } as const;
    assert.equal(kind.suits(wanted, { local, remote: undefined }), true);
    assert.equal(kind.suits(wanted, { local: parseAddr('10.98.0.12'), remote: undefined }), false);
    assert.equal(kind.suits(wanted, { local, remote: parseAddr('10.98.0.12') }), false);
    assert.deepEqual(kind.create(wanted), ['remote', 'any', 'local', '10.98.0.11', 'ttl', 'inherit', 'nopmtudisc']);
  });
});
