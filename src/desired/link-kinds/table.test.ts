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
