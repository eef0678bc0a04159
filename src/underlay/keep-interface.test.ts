import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NOTHING_ASKED as ASKED, addresses, networkInterface as nic } from '../../test/fakes/host-networks.ts';
import { formatAddr, parseAddr } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import type { HostNetwork, NetworkInterface } from './host-network.ts';
import type { InterfaceRequest } from './interface-choice.ts';
import { addressesOfHost, type InterfaceInUse, keepOrChooseInterface } from './keep-interface.ts';

function host(interfaces: readonly NetworkInterface[], ipv4: readonly string[], ipv6 = ipv4): HostNetwork {
  return { interfaces, defaultDevices: { ipv4, ipv6 }, canReach: undefined };
}

const IN_USE: InterfaceInUse = { name: 'eth0', addresses: addresses('192.168.77.1', 'fd77::1') };
const ETH0 = nic('eth0', ['192.168.77.1 dynamic', 'fd77::1']);

/** `eth0 192.168.77.1`, of a running agent and of one that starts with what an earlier run knew; `none`. */
function outcome(
  network: HostNetwork,
  asked: Partial<InterfaceRequest> = {},
  inUse: InterfaceInUse = IN_USE,
): string[] {
  return [true, false].map((isRunning) => {
    const choice = keepOrChooseInterface({ ...ASKED, ...asked }, network, { inUse, isRunning });
    if (!choice.found) return 'none';
    return [choice.interface.name, ...present(choice.addresses).map(formatAddr)].join(' ');
  });
}

const both = (text: string): string[] => [text, text];

describe('the interface in use', () => {
  it('keeps its address beside one that ranks higher: a floating one, or the first of the kernel’s list', () => {
    const floating = nic('eth0', ['192.168.77.250', '192.168.77.1 dynamic', '192.168.77.9']);
    assert.deepEqual(outcome(host([floating], ['eth0'])), both('eth0 192.168.77.1'));
    for (const asked of [{ iface: ['eth0'] }, { ifaceRegex: [/^192\.168\.77\./] }, { ifaceRegex: [/^eth/] }]) {
      assert.deepEqual(outcome(host([floating], ['eth0']), asked), both('eth0 192.168.77.1'));
    }
  });

  it('is kept beside a default route of somebody else’s, before or after its own', () => {
    const vpn = nic('tun0', ['10.8.0.2']);
    assert.deepEqual(outcome(host([ETH0, vpn], ['tun0', 'eth0'])), both('eth0 192.168.77.1'));
    assert.deepEqual(outcome(host([ETH0, vpn], ['eth0', 'tun0'])), both('eth0 192.168.77.1'));
    const asked = { ifaceCanReach: parseAddr('8.8.8.8') };
    const reach = { ok: true, dev: 'tun0', source: parseAddr('10.8.0.2') } as const;
    const reached = { ...host([ETH0, vpn], ['tun0']), canReach: reach };
    assert.deepEqual(outcome(reached, asked), ['eth0 192.168.77.1', 'tun0 10.8.0.2']);
  });

  it('is kept while there is no default route at all', () => {
    assert.deepEqual(outcome(host([ETH0], [])), both('eth0 192.168.77.1'));
    const unreachable = { ...host([ETH0], []), canReach: { ok: false, error: 'Network is unreachable' } } as const;
    assert.deepEqual(outcome(unreachable, { ifaceCanReach: parseAddr('8.8.8.8') }), both('eth0 192.168.77.1'));
  });

  it('is kept by a running agent when the default route leads elsewhere; a start follows it', () => {
    const eth1 = nic('eth1', ['10.9.8.7']);
    assert.deepEqual(outcome(host([ETH0, eth1], ['eth1'])), ['eth0 192.168.77.1', 'eth1 10.9.8.7']);
  });

  it('is left when its address is gone, when it is down, or when it is not what is asked for', () => {
    const eth1 = nic('eth1', ['10.9.8.7']);
    const other = nic('eth0', ['192.168.77.9']);
    assert.deepEqual(outcome(host([other], ['eth0'])), both('eth0 192.168.77.9'));
    assert.deepEqual(
      outcome(host([nic('eth0', ['192.168.77.1'], { up: false }), eth1], ['eth1'])),
      both('eth1 10.9.8.7'),
    );
    assert.deepEqual(outcome(host([ETH0, eth1], ['eth0']), { iface: ['eth1'] }), both('eth1 10.9.8.7'));
    assert.deepEqual(
      outcome(host([ETH0, eth1], ['eth0']), { publicAddresses: addresses('10.9.8.7') }),
      both('eth1 10.9.8.7'),
    );
    assert.deepEqual(
      outcome(host([ETH0, eth1], ['eth0']), { nodeIps: [parseAddr('10.9.8.7')!] }),
      both('eth1 10.9.8.7'),
    );
    assert.deepEqual(outcome(host([ETH0], ['eth0']), { iface: ['eth7'] }), both('none'));
  });

  it('is not left for an earlier one of the list that turns up', () => {
    const eth1 = nic('eth1', ['10.9.8.7']);
    assert.deepEqual(outcome(host([ETH0, eth1], ['eth0']), { iface: ['eth1', 'eth0'] }), both('eth0 192.168.77.1'));
  });

  it('found by the default route for want of a named one, is left for that by a start', () => {
    const eth1 = nic('eth1', ['10.9.8.7']);
    const asked = { iface: ['eth1'], elseDefault: true };
    assert.deepEqual(outcome(host([ETH0, eth1], ['eth0']), asked), ['eth0 192.168.77.1', 'eth1 10.9.8.7']);
    const floating = nic('eth0', ['192.168.77.250', '192.168.77.1 dynamic']);
    assert.deepEqual(outcome(host([floating], ['eth0']), asked), both('eth0 192.168.77.1'));
  });

  it('is known by its address when it has got another name, or the address another interface', () => {
    assert.deepEqual(outcome(host([nic('lan0', ['192.168.77.1'])], ['lan0'])), both('lan0 192.168.77.1'));
    const bridged = [nic('eth0', []), nic('br0', ['192.168.77.250', '192.168.77.1'])];
    assert.deepEqual(outcome(host(bridged, ['br0'])), both('br0 192.168.77.1'));
    assert.deepEqual(outcome(host([nic('lan0', ['192.168.77.1'])], ['lan0']), { iface: ['eth0'] }), both('none'));
  });

  it('keeps an address that is deprecated or temporary while it runs; a start takes a better one', () => {
    const asked = { stack: 'ipv6' as const };
    const renumbered = nic('eth0', ['fd88::1', 'fd77::1 deprecated']);
    assert.deepEqual(outcome(host([renumbered], ['eth0']), asked), ['eth0 fd77::1', 'eth0 fd88::1']);
    const temporary = nic('eth0', ['fd88::1', 'fd77::1 dynamic temporary']);
    assert.deepEqual(outcome(host([temporary], ['eth0']), asked), both('eth0 fd77::1'));
    assert.deepEqual(outcome(host([nic('eth0', ['fd77::1 deprecated'])], ['eth0']), asked), ['eth0 fd77::1', 'none']);
  });

  it('needs an address of each family of a dual stack', () => {
    const dual = { stack: 'dual' as const };
    const more = nic('eth0', ['192.168.77.250', '192.168.77.1', 'fd77::250', 'fd77::1']);
    assert.deepEqual(outcome(host([more], ['eth0']), dual), both('eth0 192.168.77.1 fd77::1'));
    const lost = nic('eth0', ['192.168.77.250', '192.168.77.1', 'fd77::250']);
    assert.deepEqual(outcome(host([lost], ['eth0']), dual), both('eth0 192.168.77.250 fd77::250'));
  });

  it('is published under the address that was asked for, with its MTU as it is', () => {
    const asked = { ...ASKED, iface: ['eth0'], publicAddresses: addresses('203.0.113.7') };
    const network = host([nic('eth0', ['192.168.77.1'], { mtuBytes: 9000 })], ['eth0']);
    const choice = keepOrChooseInterface(asked, network, { inUse: IN_USE, isRunning: true });
    assert.ok(choice.found);
    assert.equal(choice.interface.mtuBytes, 9000);
    assert.equal(choice.publicAddresses.ipv4, parseIpv4('203.0.113.7'));
  });
});

it('addresses of a host are those that are its alone', () => {
  const network = host(
    [
      nic('lo', ['127.0.0.1', '::1', '10.0.0.9']),
      nic('eth0', ['192.168.77.1 deprecated', '169.254.20.10', 'fe80::1', 'fd77::1']),
    ],
    [],
  );
  assert.deepEqual(addressesOfHost(network).map(formatAddr), ['10.0.0.9', '192.168.77.1', 'fd77::1']);
});
