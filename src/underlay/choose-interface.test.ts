import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addresses, networkInterface, NOTHING_ASKED as REQUEST } from '../../test/fakes/host-networks.ts';
import { formatAddr, parseAddr } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { chooseInterface } from './choose-interface.ts';
import { choiceLogLines, explainChoice, interfaceNotFound } from './explain-choice.ts';
import { type HostNetwork, type NetworkInterface, usableAddresses } from './host-network.ts';
import type { ChosenInterface, InterfaceRequest, NoInterface } from './interface-choice.ts';

let index = 0;
function nic(name: string, addresses: readonly string[], change: Partial<NetworkInterface> = {}): NetworkInterface {
  return networkInterface(name, addresses, { index: ++index, ...change });
}

const LO = nic('lo', ['127.0.0.1', '::1'], { mtuBytes: 65_536 });
const ETH0 = nic('eth0', ['192.168.77.1', 'fd77::1', 'fe80::1']);
const ETH1 = nic('eth1', ['10.9.8.7', 'fd99::7', 'fe80::2'], { mtuBytes: 9000 });

const HOST: HostNetwork = {
  interfaces: [LO, ETH0, ETH1],
  defaultDevices: { ipv4: ['eth0', 'eth1'], ipv6: ['eth0'] },
  canReach: undefined,
};

function choose(request: Partial<InterfaceRequest>, host: Partial<HostNetwork> = {}) {
  return chooseInterface({ ...REQUEST, ...request }, { ...HOST, ...host });
}

function chosen(request: Partial<InterfaceRequest>, host: Partial<HostNetwork> = {}): ChosenInterface {
  const choice = choose(request, host);
  assert(choice.found, choice.found ? '' : interfaceNotFound(choice).message);
  return choice;
}

function notFound(request: Partial<InterfaceRequest>, host: Partial<HostNetwork> = {}): NoInterface {
  const choice = choose(request, host);
  assert(!choice.found);
  return choice;
}

/** `eth0 192.168.77.1 fd77::1`. */
function summary(choice: ChosenInterface): string {
  return [choice.interface.name, ...present(choice.addresses).map(formatAddr)].join(' ');
}

const ip4 = (text: string) => parseIpv4(text) ?? assert.fail(text);

describe('chooseInterface without a wish', () => {
  it('takes the first default route, whatever its metric', () => {
    assert.equal(summary(chosen({})), 'eth0 192.168.77.1');
    assert.equal(summary(chosen({}, { defaultDevices: { ipv4: ['eth1', 'eth0'], ipv6: [] } })), 'eth1 10.9.8.7');
    assert.equal(summary(chosen({ stack: 'ipv6' })), 'eth0 fd77::1');
    assert.equal(summary(chosen({ stack: 'dual' })), 'eth0 192.168.77.1 fd77::1');
  });

  it('says why the others were not taken', () => {
    const choice = chosen({}, { interfaces: [...HOST.interfaces, nic('wlan0', [])] });
    assert.equal(choice.why, 'the default route leads through it');
    assert.deepEqual(
      choice.rejected.map(({ name, why }) => `${name}: ${why}`),
      ['lo: no default route leads through it', 'eth1: comes after eth0', 'wlan0: comes after eth0'],
    );
  });

  it('refuses a dual stack whose default routes lead through different interfaces', () => {
    const choice = notFound({ stack: 'dual' }, { defaultDevices: { ipv4: ['eth0'], ipv6: ['eth1'] } });
    assert.equal(
      choice.reason,
      'Failed to find any valid interface to use: v6 interface eth1 must be the same with v4 interface eth0: their default routes lead through different interfaces',
    );
    assert.deepEqual(
      choice.rejected.map(({ name, why }) => `${name}: ${why}`),
      [
        'lo: no default route leads through it',
        'eth0: has the IPv4 default route, but not the IPv6 one',
        'eth1: has the IPv6 default route, but not the IPv4 one',
      ],
    );
  });

  it('lists every candidate when there is no default route', () => {
    const error = interfaceNotFound(notFound({}, { defaultDevices: { ipv4: [], ipv6: ['eth0'] } }));
    assert.equal(error.code, 'WEFT_INTERFACE_NOT_FOUND');
    assert.equal(
      error.message,
      [
        'Failed to find any valid interface to use: failed to get default interface: there is no IPv4 default route',
        '  lo (127.0.0.1, ::1): there is no IPv4 default route',
        '  eth0 (192.168.77.1, fd77::1, fe80::1): there is no IPv4 default route',
        '  eth1 (10.9.8.7, fd99::7, fe80::2): there is no IPv4 default route',
      ].join('\n'),
    );
    assert.match(error.hint ?? '', /--iface/);
  });

  it('takes the interface that has the public address', () => {
    const choice = chosen({ publicAddresses: addresses('10.9.8.7') });
    assert.equal(summary(choice), 'eth1 10.9.8.7');
    assert.equal(choice.why, 'it has 10.9.8.7 (--public-ip)');
    assert.equal(summary(chosen({ stack: 'ipv6', publicAddresses: addresses('fd99::7') })), 'eth1 fd99::7');
    assert.equal(
      summary(chosen({ stack: 'dual', publicAddresses: addresses('10.9.8.7', 'fd99::7') })),
      'eth1 10.9.8.7 fd99::7',
    );
    assert.equal(summary(chosen({ stack: 'dual', publicAddresses: addresses('fd99::7') })), 'eth1 10.9.8.7 fd99::7');
  });

  it('does not look for a public address of a family that the network does not have', () => {
    assert.equal(summary(chosen({ publicAddresses: addresses('fd99::7') })), 'eth0 192.168.77.1');
    assert.equal(summary(chosen({ stack: 'ipv6', publicAddresses: addresses('10.9.8.7') })), 'eth0 fd77::1');
  });

  it('fails when nobody has the public address', () => {
    const choice = notFound({ publicAddresses: addresses('203.0.113.9') });
    assert.equal(
      choice.reason,
      'Failed to find any valid interface to use: error looking up interface 203.0.113.9: no interface with given IP found',
    );
    assert.equal(choice.rejected[1]?.why, 'does not have 203.0.113.9');
  });

  it('fails when the two public addresses are on different interfaces', () => {
    const choice = notFound({ stack: 'dual', publicAddresses: addresses('10.9.8.7', 'fd77::1') });
    assert.match(choice.reason, /v6 interface eth0 must be the same with v4 interface eth1$/);
    assert.equal(choice.rejected[2]?.why, 'has 10.9.8.7, but not fd77::1 (--public-ipv6)');
  });
});

describe('chooseInterface with --iface', () => {
  it('takes a name or an address, the first that fits', () => {
    assert.equal(summary(chosen({ iface: ['eth1'] })), 'eth1 10.9.8.7');
    assert.equal(summary(chosen({ iface: ['10.9.8.7'] })), 'eth1 10.9.8.7');
    assert.equal(summary(chosen({ stack: 'ipv6', iface: ['fd99::7'] })), 'eth1 fd99::7');
    const choice = chosen({ iface: ['eth7', '203.0.113.1', 'eth1', 'eth0'] });
    assert.equal(summary(choice), 'eth1 10.9.8.7');
    assert.deepEqual(choice.failures, [
      { what: 'eth7', error: 'error looking up interface eth7: no interface has that name' },
      {
        what: '203.0.113.1',
        error: 'error looking up interface 203.0.113.1: no interface with given IP found',
      },
    ]);
    assert.equal(choice.rejected[1]?.why, 'is not named eth7; does not have 203.0.113.1; is not named eth1');
  });

  it('uses the address that was named, although it is not the first', () => {
    const eth0 = nic('eth0', ['192.168.77.1', '192.168.77.2', 'fd77::1', 'fd77::2']);
    assert.equal(summary(chosen({ iface: ['192.168.77.2'] }, { interfaces: [LO, eth0] })), 'eth0 192.168.77.2');
    assert.equal(
      summary(chosen({ stack: 'dual', iface: ['192.168.77.2'] }, { interfaces: [LO, eth0] })),
      'eth0 192.168.77.2 fd77::1',
    );
    assert.equal(
      summary(
        chosen(
          { stack: 'dual', iface: ['192.168.77.2'], publicAddresses: addresses('fd77::2') },
          { interfaces: [LO, eth0] },
        ),
      ),
      'eth0 192.168.77.2 fd77::2',
    );
    // flannel crashes on this one.
    assert.equal(
      summary(chosen({ stack: 'dual', iface: ['fd77::2'] }, { interfaces: [LO, eth0] })),
      'eth0 192.168.77.1 fd77::2',
    );
  });

  it('advertises the public address, which may be anywhere', () => {
    const choice = chosen({ stack: 'ipv4', iface: ['eth1'], publicAddresses: addresses('203.0.113.9') });
    assert.equal(summary(choice), 'eth1 10.9.8.7');
    assert.equal(choice.publicAddresses.ipv4, ip4('203.0.113.9'));
    assert.deepEqual(choiceLogLines(choice), [
      'Using interface with name eth1 and address 10.9.8.7',
      'Using 203.0.113.9 as external address',
    ]);
    assert.deepEqual(choiceLogLines(chosen({ stack: 'dual' })), [
      'Determining IP address of default interface',
      'Using interface with name eth0 and address 192.168.77.1',
      'Using interface with name eth0 and v6 address fd77::1',
      'Defaulting external address to interface address (192.168.77.1)',
      'Defaulting external v6 address to interface address (fd77::1)',
    ]);
  });

  it('has no public address of a family that the network does not have', () => {
    const choice = chosen({ iface: ['eth1'], publicAddresses: addresses('fd99::1') });
    assert.equal(choice.publicAddresses.ipv6, undefined);
    assert.equal(choice.addresses.ipv6, undefined);
  });

  it('does not take an interface without an address of each family, or without an MTU', () => {
    const host = { interfaces: [LO, nic('eth0', ['fd77::1']), nic('eth1', ['10.9.8.7'], { mtuBytes: 0 })] };
    const choice = notFound({ iface: ['eth0', 'eth1'] }, host);
    assert.equal(choice.reason, 'Failed to find interface to use that matches the interfaces and/or regexes provided');
    assert.deepEqual(choice.failures, [
      { what: 'eth0', error: 'eth0 fits, but has no usable IPv4 address' },
      { what: 'eth1', error: 'eth1 fits, but its MTU is 0' },
    ]);
    assert.match(interfaceNotFound(choice).message, /\n {2}tried eth1: eth1 fits, but its MTU is 0\n {2}lo /);
    assert.match(notFound({ stack: 'dual', iface: ['eth0'] }, host).failures[0]!.error, /no usable IPv4/);
    assert.match(
      notFound({ stack: 'dual', iface: ['eth1'] }, { interfaces: [nic('eth1', ['10.9.8.7'])] }).failures[0]!.error,
      /no usable IPv6/,
    );
  });

  it('does not take an address of a family that the network does not have', () => {
    assert.equal(
      notFound({ iface: ['fd99::7'] }).failures[0]?.error,
      'error looking up interface fd99::7: the network has no IPv6',
    );
    assert.match(notFound({ stack: 'ipv6', iface: ['10.9.8.7'] }).failures[0]!.error, /the network has no IPv4$/);
  });

  it('says when what it takes is down', () => {
    const choice = chosen({ iface: ['eth0'] }, { interfaces: [nic('eth0', ['10.0.0.1'], { up: false })] });
    assert.equal(choice.why, 'it is named eth0 (--iface) (but it is down)');
  });
});

describe('chooseInterface with --iface-regex', () => {
  it('looks at the addresses of all interfaces before it looks at names', () => {
    const named = nic('net10.9', ['172.16.0.1']);
    const host = { interfaces: [LO, named, ETH0, ETH1] };
    assert.equal(summary(chosen({ ifaceRegex: [/10\.9/] }, host)), 'eth1 10.9.8.7');
    assert.equal(summary(chosen({ ifaceRegex: [/net1/] }, host)), 'net10.9 172.16.0.1');
  });

  it('is not anchored, is tried after --iface and in order', () => {
    assert.equal(summary(chosen({ iface: ['eth7'], ifaceRegex: [/nothing/, /th1/] })), 'eth1 10.9.8.7');
  });

  it('uses the address that matches', () => {
    const eth0 = nic('eth0', ['10.0.0.1', '10.1.0.1', '10.2.0.1']);
    const choice = chosen({ ifaceRegex: [/^10\.[12]\./] }, { interfaces: [LO, eth0] });
    assert.equal(summary(choice), 'eth0 10.1.0.1');
    assert.equal(choice.why, '10.1.0.1 matches --iface-regex ^10\\.[12]\\.');
  });

  it('wants both families of a dual stack to match, unless the name does', () => {
    assert.equal(summary(chosen({ stack: 'dual', ifaceRegex: [/^10\.9|^fd99/] })), 'eth1 10.9.8.7 fd99::7');
    assert.equal(summary(chosen({ stack: 'dual', ifaceRegex: [/eth1/] })), 'eth1 10.9.8.7 fd99::7');
    const choice = notFound({ stack: 'dual', ifaceRegex: [/^10\.9/] });
    assert.equal(
      choice.failures[0]?.error,
      'could not match pattern ^10\\.9 to any of the available network interfaces (lo:[127.0.0.1 ::1], eth0:[192.168.77.1 fd77::1 fe80::1], eth1:[10.9.8.7 fd99::7 fe80::2])',
    );
    assert.equal(
      choice.rejected[2]?.why,
      'no address of it matches ^10\\.9; neither its addresses nor its name match ^10\\.9',
    );
  });

  it('never matches loopback by its address', () => {
    assert.equal(notFound({ ifaceRegex: [/^127/] }).found, false);
  });

  it('goes on to the next that matches when the first cannot be used', () => {
    const host = { interfaces: [LO, nic('eth0', []), ETH1] };
    assert.equal(summary(chosen({ ifaceRegex: [/^eth/] }, host)), 'eth1 10.9.8.7');
  });
});

describe('chooseInterface with --iface-can-reach and --iface-from-node-ip', () => {
  it('takes device and source of the route, after all else has failed', () => {
    const target = parseAddr('198.51.100.1');
    const canReach = { ok: true, dev: 'eth1', source: parseAddr('10.9.8.7') } as const;
    assert.equal(summary(chosen({ ifaceCanReach: target }, { canReach })), 'eth1 10.9.8.7');
    assert.equal(summary(chosen({ iface: ['eth7'], ifaceCanReach: target }, { canReach })), 'eth1 10.9.8.7');
    assert.equal(summary(chosen({ iface: ['eth0'], ifaceCanReach: target }, { canReach })), 'eth0 192.168.77.1');
    assert.equal(summary(chosen({ stack: 'dual', ifaceCanReach: target }, { canReach })), 'eth1 10.9.8.7 fd99::7');
    assert.equal(
      summary(chosen({ ifaceCanReach: target }, { canReach: { ok: true, dev: 'eth1', source: undefined } })),
      'eth1 10.9.8.7',
    );
  });

  it('finds its own address on its interface, where the kernel says lo', () => {
    const canReach = { ok: true, dev: 'lo', source: parseAddr('10.9.8.7') } as const;
    assert.equal(summary(chosen({ ifaceCanReach: parseAddr('10.9.8.7') }, { canReach })), 'eth1 10.9.8.7');
  });

  it('says what the route lookup said', () => {
    const canReach = { ok: false, error: 'RTNETLINK answers: Network is unreachable' } as const;
    const choice = notFound({ ifaceCanReach: parseAddr('198.51.100.1') }, { canReach });
    assert.deepEqual(choice.failures, [
      {
        what: 'a route to 198.51.100.1',
        error: 'failed to find the route to 198.51.100.1: RTNETLINK answers: Network is unreachable',
      },
    ]);
  });

  it('does not use a route of a family that the network does not have', () => {
    const canReach = { ok: true, dev: 'eth1', source: parseAddr('fd99::7') } as const;
    assert.match(
      notFound({ ifaceCanReach: parseAddr('2001:db8::1') }, { canReach }).failures[0]!.error,
      /the network has no IPv6/,
    );
  });

  it("takes the interface with the Node's InternalIP, of both families when it has both", () => {
    const nodeIps = ['10.9.8.7', 'fd99::7'].map((text) => parseAddr(text)!);
    assert.equal(summary(chosen({ nodeIps })), 'eth1 10.9.8.7');
    assert.equal(summary(chosen({ stack: 'ipv6', nodeIps })), 'eth1 fd99::7');
    assert.equal(summary(chosen({ stack: 'dual', nodeIps })), 'eth1 10.9.8.7 fd99::7');
    assert.equal(summary(chosen({ stack: 'dual', nodeIps: nodeIps.slice(0, 1) })), 'eth1 10.9.8.7 fd99::7');
    assert.match(notFound({ nodeIps: [] }).failures[0]!.error, /no InternalIP/);
    assert.match(
      notFound({ nodeIps: [parseAddr('203.0.113.1')!] }).failures[0]!.error,
      /203\.0\.113\.1: no interface with given IP found/,
    );
  });
});

describe('chooseInterface with an empty --iface or --iface-regex', () => {
  it('takes the default route, whatever the public address, as flannel does', () => {
    const choice = chosen({ elseDefault: true, publicAddresses: addresses('203.0.113.7') });
    assert.equal(summary(choice), 'eth0 192.168.77.1');
    assert.equal(choice.publicAddresses.ipv4, ip4('203.0.113.7'));
    assert.equal(choiceLogLines(choice)[0], 'Determining IP address of default interface');
  });

  it('prefers what was named beside it', () => {
    assert.equal(summary(chosen({ elseDefault: true, iface: ['eth1'] })), 'eth1 10.9.8.7');
    assert.equal(summary(chosen({ elseDefault: true, ifaceRegex: [/^10\./] })), 'eth1 10.9.8.7');
    const choice = chosen({ elseDefault: true, iface: ['eth7'] });
    assert.equal(summary(choice), 'eth0 192.168.77.1');
    assert.deepEqual(
      choice.failures.map(({ what }) => what),
      ['eth7'],
    );
  });
});

describe('chooseInterface and the loopback interface', () => {
  const announced = nic('lo', ['127.0.0.1', '10.255.0.1', '::1'], { mtuBytes: 65_536 });
  const host = { interfaces: [announced, ETH0] };

  it('refuses it by name, and says how it can be had', () => {
    for (const request of [{ iface: ['lo'] }, { ifaceRegex: [/^lo$/] }]) {
      for (const interfaces of [HOST.interfaces, host.interfaces]) {
        const { failures } = notFound(request, { interfaces });
        assert.match(failures[0]!.error, /^lo is the loopback interface, .*\(--iface-allow-loopback allows it\)$/);
      }
    }
  });

  it('refuses its own addresses wherever they are asked for', () => {
    assert.match(
      notFound({ iface: ['127.0.0.1'] }).failures[0]!.error,
      /^lo has 127\.0\.0\.1, which no other host can reach/,
    );
    assert.match(notFound({ stack: 'ipv6', iface: ['::1'] }).failures[0]!.error, /^lo has ::1, which no other host/);
    assert.match(
      notFound({ publicAddresses: addresses('127.0.0.1') }).reason,
      /lo has 127\.0\.0\.1, which no other host can reach/,
    );
    const canReach = { ok: true, dev: 'lo', source: parseAddr('127.0.0.1') } as const;
    assert.equal(notFound({ ifaceCanReach: parseAddr('127.0.0.9') }, { canReach }).found, false);
  });

  it('takes an address of the host that is kept there, when it is named', () => {
    assert.equal(summary(chosen({ iface: ['10.255.0.1'] }, host)), 'lo 10.255.0.1');
    assert.equal(summary(chosen({ ifaceRegex: [/^10\.255/] }, host)), 'lo 10.255.0.1');
  });

  it('takes all of it when forced', () => {
    assert.equal(summary(chosen({ iface: ['lo'], allowLoopback: true })), 'lo 127.0.0.1');
    assert.equal(summary(chosen({ iface: ['lo'], allowLoopback: true }, host)), 'lo 10.255.0.1');
    assert.equal(summary(chosen({ stack: 'dual', iface: ['lo'], allowLoopback: true })), 'lo 127.0.0.1 ::1');
    assert.equal(summary(chosen({ iface: ['127.0.0.1'], allowLoopback: true })), 'lo 127.0.0.1');
  });
});

describe('the address of an interface', () => {
  it('is global before link-local, permanent before dynamic, lasting before temporary, else the first', () => {
    const candidate = nic('eth0', [
      'fe80::1',
      'fd00::dead deprecated',
      'fd00::1 dynamic temporary',
      'fd00::2 dynamic',
      'fd00::3 temporary',
      'fd00::4',
      'fd00::5',
      '169.254.1.1',
      '10.0.0.2 dynamic',
      '10.0.0.1',
      '127.0.0.5',
      '224.0.0.1',
      '255.255.255.255',
      'ff02::1',
    ]);
    assert.deepEqual(
      usableAddresses(candidate).map(({ addr }) => formatAddr(addr)),
      ['fd00::4', 'fd00::5', '10.0.0.1', 'fd00::3', 'fd00::2', '10.0.0.2', 'fd00::1', 'fe80::1', '169.254.1.1'],
    );
  });

  it('may be a link-local one when there is nothing else', () => {
    const host = { interfaces: [nic('eth0', ['169.254.7.7', 'fe80::7'])] };
    assert.equal(summary(chosen({ stack: 'dual', iface: ['eth0'] }, host)), 'eth0 169.254.7.7 fe80::7');
  });
});

describe('--explain-iface', () => {
  it('is a table of all interfaces', () => {
    assert.equal(
      explainChoice(chosen({ iface: ['eth7', 'eth1'] })),
      [
        'Could not find valid interface matching eth7: error looking up interface eth7: no interface has that name',
        '*  eth1  10.9.8.7, fd99::7, fe80::2      chosen: it is named eth1 (--iface)',
        '   lo    127.0.0.1, ::1                  is not named eth7; is not named eth1',
        '   eth0  192.168.77.1, fd77::1, fe80::1  is not named eth7; is not named eth1',
      ].join('\n'),
    );
  });

  it('says so when there is none', () => {
    assert.equal(
      explainChoice(notFound({}, { interfaces: [nic('eth0', [])] })),
      [
        'Failed to find any valid interface to use: eth0 fits, but has no usable IPv4 address',
        '  eth0  -  fits, but has no usable IPv4 address',
      ].join('\n'),
    );
    assert.match(explainChoice(notFound({}, { interfaces: [] })), /^Failed to find any valid interface to use: failed/);
  });
});
