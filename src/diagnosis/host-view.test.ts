import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addresses } from '../../test/fakes/host-networks.ts';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { formatAddr, formatPrefix, parsePrefix } from '../ip/address.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import type { Ipv4Prefix } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import { formatLastKnown } from '../node-files/last-known.ts';
import { describePeer, peerOf, prefixesOfPeer, readHostView } from './host-view.ts';

const signal = new AbortController().signal;
const PATH = '/run/flannel/subnet.env';

function leaseOf(host: number, backendType: string): Lease {
  return {
    ...{ subnets: { ipv4: parsePrefix(`10.244.${host}.0/24`) as Ipv4Prefix, ipv6: undefined }, expiresAtMs: undefined },
    attrs: {
      ...{ publicAddresses: { ipv4: parseIpv4(`192.168.77.${host}`), ipv6: undefined }, backendType },
      ...{ backendData: { ipv4: undefined, ipv6: undefined } },
    },
  };
}

/** A host with that backend, whose last-known file and subnet.env are there. */
function viewOf(
  type: string,
  env: string | undefined = 'FLANNEL_MTU=1472\n',
  withFile = true,
  tunAddresses: readonly string[] = ['10.244.1.0/32'],
) {
  const text = `{"Network":"10.244.0.0/16","Backend":{"Type":"${type}"}}`;
  const config = parseNetConf(text, { source: 'net-conf.json', validation: 'full', backends: backendKind });
  const backendType = type === 'udp' ? '' : type;
  const known = {
    ...{ source: 'etcd /x', config, node: undefined, own: leaseOf(1, backendType) },
    peers: [{ ...leaseOf(2, backendType), origin: { holder: 'worker-2', since: 5 } }],
    external: { name: 'eth0', addresses: addresses('192.168.77.1') },
  };
  const files: Record<string, string | undefined> = { [PATH]: env };
  if (withFile) files[`${PATH}.last-known.json`] = formatLastKnown(known, new Date(0));
  const host = {
    readText: async (path: string) => files[path],
    links: async () => [
      { name: 'eth0', mtuBytes: 1_500, addresses: ['192.168.77.1/24'] },
      { name: 'flannel0', mtuBytes: 1_460, addresses: tunAddresses },
    ],
  };
  return readHostView(host, PATH, backendKind, signal);
}

describe('this host and its peers, from the files of the agent', () => {
  it('have each peer with the addresses to probe, whatever store it comes from', async () => {
    const { peers, mtuBytes } = await viewOf('udp');
    assert.deepEqual(
      peers.map(({ id, overlay, underlay }) => [id, formatAddr(overlay), formatAddr(underlay!)]),
      [['10.244.2.0/24', '10.244.2.0', '192.168.77.2']],
    );
    assert.equal(mtuBytes, 1_472);
    assert.equal(describePeer(peers[0]!), '10.244.2.0/24 on 192.168.77.2');
  });

  it('are probed at their bridge where the backend has no device for the first address, unless a device has it all the same', async () => {
    for (const [type, expected] of [
      ['vxlan', '10.244.2.0'],
      ['host-gw', '10.244.2.1'],
      ['extension', '10.244.2.1'],
      ['alloc', '10.244.2.1'],
    ] as const) {
      const overlay = async (tunAddresses?: readonly string[]) =>
        (await viewOf(type, undefined, true, tunAddresses)).peers.map((peer) => formatAddr(peer.overlay));
      assert.deepEqual(await overlay([]), [expected], type);
      assert.deepEqual(await overlay(), ['10.244.2.0'], type);
    }
  });

  it('know the MTU by the device where subnet.env is gone', async () => {
    assert.equal((await viewOf('udp', '')).mtuBytes, 1_460);
  });

  it('find a peer by its subnet, an address in it, that of its host, or its node', async () => {
    const view = await viewOf('udp');
    for (const word of ['10.244.2.0/24', '10.244.2.77', '192.168.77.2', 'worker-2']) {
      assert.equal(peerOf(view, word), view.peers[0], word);
      assert.deepEqual(prefixesOfPeer(view, word)?.map(formatPrefix), ['10.244.2.0/24', '192.168.77.2/32'], word);
    }
    for (const word of ['10.244.3.1', '192.168.77.9', 'b']) {
      assert.equal(prefixesOfPeer(view, word), undefined);
      assert.throws(() => peerOf(view, word), { code: 'WEFT_USAGE', message: `"${word}" is not a peer of this host` });
    }
  });

  it('are not there before an agent was ready', async () => {
    await assert.rejects(viewOf('udp', undefined, false), {
      code: 'WEFT_NOT_READY',
      message: /there is no .*last-known\.json/,
    });
  });
});
