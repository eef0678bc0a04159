import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FAKE_IDENTITY_HOST } from '../../test/fakes/backends.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import { isSkipped } from '../backend/backend.ts';
import { backendKind, configuredBackend, identifyBackend, openBackend } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { WeftError } from '../errors.ts';
import { formatAddr, parsePrefix } from '../ip/address.ts';
import { perFamily } from '../ip/family.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import type { Ipv4Prefix, Ipv6Prefix } from '../ip/prefix.ts';
import { type Lease, type LeaseAttrs, subnetsKey } from '../lease/lease.ts';
import { PeerProbes, probeTargets } from './peer-probes.ts';

const signal = new AbortController().signal;
const EXTERNAL = {
  ...{ name: 'eth0', mtuBytes: 1_500 },
  ...{ addresses: addresses('192.168.77.1', 'fd77::1'), publicAddresses: addresses('192.168.77.1', 'fd77::1') },
  onLink: [parsePrefix('192.168.77.0/24')!, parsePrefix('fd77::/64')!],
};

/** The targets of one peer, as text. */
async function targets(backendText: string): Promise<string[]> {
  const text = `{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":${backendText}}`;
  const config = parseNetConf(text, { source: 'net-conf.json', validation: 'full', backends: backendKind });
  const past = { published: perFamily(() => undefined), networks: [] };
  const setup = await identifyBackend(configuredBackend(config), config, past, FAKE_IDENTITY_HOST, signal);
  const backend = openBackend(setup, config, EXTERNAL);
  const own = leaseOf(1, backend.attrs);
  const peer = leaseOf(2, backend.attrs);
  const part = backend.peer(own, peer);
  assert.ok(!isSkipped(part));
  return probeTargets(backend, own, EXTERNAL, peer, part).map(
    ({ id, overlay, underlay, mtuBytes }) =>
      `${id} ${formatAddr(overlay)} ${underlay && formatAddr(underlay)} ${mtuBytes}`,
  );
}

function leaseOf(host: number, attrs: LeaseAttrs): Lease {
  return {
    subnets: {
      ipv4: parsePrefix(`10.244.${host}.0/24`) as Ipv4Prefix,
      ipv6: parsePrefix(`fd10:0:0:${host}::/64`) as Ipv6Prefix,
    },
    attrs: { ...attrs, publicAddresses: { ipv4: parseIpv4(`192.168.77.${host}`), ipv6: parseIpv6(`fd77::${host}`) } },
    expiresAtMs: undefined,
  };
}

describe('probes of an agent', () => {
  it('go to the device of the peer’s overlay in both families, else to its bridge, else nowhere', async () => {
    assert.deepEqual(await targets('{"Type":"vxlan"}'), [
      '10.244.2.0/24 10.244.2.0 192.168.77.2 1430',
      'fd10:0:0:2::/64 fd10:0:0:2:: fd77::2 1430',
    ]);
    assert.deepEqual(await targets('{"Type":"udp"}'), [
      '10.244.2.0/24 10.244.2.0 192.168.77.2 1472',
      'fd10:0:0:2::/64 fd10:0:0:2:: fd77::2 1472',
    ]);
    assert.deepEqual(await targets('{"Type":"host-gw"}'), [
      '10.244.2.0/24 10.244.2.1 192.168.77.2 1500',
      'fd10:0:0:2::/64 fd10:0:0:2::1 fd77::2 1500',
    ]);
    assert.deepEqual(await targets('{"Type":"alloc"}'), []);
  });

  const target = {
    ...{ id: '10.244.2.0/24', overlay: parseIpv4('10.244.2.0')!, underlay: undefined },
    ...{ mtuBytes: 1_472, underlayMtuBytes: 1_500 },
  };
  const key = subnetsKey({ ipv4: parsePrefix('10.244.2.0/24') as Ipv4Prefix, ipv6: undefined });

  it('are not sent when they are off, and say once why when they cannot be', () => {
    const lines: string[] = [];
    const log = { info: () => {}, warn: (line: string) => lines.push(line) };
    using off = new PeerProbes({ port: undefined, active: () => [], record: () => {}, hint: () => {}, log });
    off.setPeer(key, [target]);
    assert.deepEqual([off.results(), off.sent, lines], [[], undefined, []]);
    let opened = 0;
    const open = () => {
      opened++;
      throw new WeftError('WEFT_SOCKET_FAILED', 'failed to make a raw ICMP socket: EPERM');
    };
    using refused = new PeerProbes({
      port: { open, describeErrno: () => 'other' },
      active: () => [],
      record: () => {},
      hint: () => {},
      log,
    });
    refused.setPeer(key, [target]);
    refused.setPeer(key, []);
    refused.setPeer(key, [target]);
    assert.equal(opened, 1);
    assert.deepEqual(lines.length, 1);
    assert.match(lines[0]!, /^Background probes are off: failed to make a raw ICMP socket/);
  });

  it('close what they have opened', () => {
    let open = 0;
    const io = { send: () => ({ atMs: 0 }), receive: () => [], [Symbol.dispose]: () => void open-- };
    const opened = () => {
      open++;
      return io;
    };
    const port = { open: () => opened(), describeErrno: () => 'other' as const };
    {
      using probes = new PeerProbes({
        port,
        active: () => [],
        record: () => {},
        hint: () => {},
        log: { info: () => {}, warn: () => {} },
      });
      probes.setPeer(key, [target]);
      assert.equal(open, 1);
    }
    assert.equal(open, 0);
  });
});
