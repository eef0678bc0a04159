import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatAddr, parseAddr } from '../../src/ip/address.ts';
import { readHostNetwork } from '../../src/linux/interfaces.ts';
import { chooseInterface } from '../../src/underlay/choose-interface.ts';
import { NOTHING_ASKED as REQUEST } from '../fakes/host-networks.ts';
import { openRealHost } from './kernel-harness.ts';

const signal = new AbortController().signal;

describe('readHostNetwork', () => {
  it('reads interfaces, default routes and a route lookup', async () => {
    await using host = await openRealHost();
    const { netns } = host;
    await host.ip('addr', 'add', 'fd77::1/64', 'dev', 'eth0', 'nodad');
    await host.ip('addr', 'add', 'fd77::2/64', 'dev', 'eth0', 'nodad', 'preferred_lft', '0', 'valid_lft', '1000');
    await host.ip('link', 'set', 'plug0', 'mtu', '9000');
    await host.ip('addr', 'add', '10.9.8.7/24', 'dev', 'plug0', 'valid_lft', '1000', 'preferred_lft', '900');
    await host.ip('route', 'add', 'default', 'via', '192.168.77.254', 'metric', '200');
    await host.ip('route', 'add', 'default', 'via', '10.9.8.1', 'metric', '100');
    await host.ip('-6', 'route', 'add', 'default', 'nexthop', 'via', 'fd77::fe', 'nexthop', 'via', 'fd77::ff');

    const network = await readHostNetwork(signal, { netns, canReach: parseAddr('192.168.77.99') });
    assert.deepEqual(network.defaultDevices, { ipv4: ['plug0', 'eth0'], ipv6: ['eth0'] });
    assert.deepEqual(network.canReach, { ok: true, dev: 'eth0', source: parseAddr('192.168.77.1') });
    const eth0 = network.interfaces.find((candidate) => candidate.name === 'eth0');
    assert.deepEqual([eth0?.mtuBytes, eth0?.up], [1500, true]);
    const addresses = eth0!.addresses.map(
      ({ addr, deprecated, dynamic }) =>
        `${formatAddr(addr)}${deprecated ? ' deprecated' : ''}${dynamic ? ' dynamic' : ''}`,
    );
    for (const text of ['192.168.77.1', 'fd77::1', 'fd77::2 deprecated dynamic'])
      assert(addresses.includes(text), text);
    const plug = network.interfaces.find((candidate) => candidate.name === 'plug0');
    assert.deepEqual([plug?.mtuBytes, plug?.addresses[0]?.dynamic], [9000, true]);

    const byDefault = chooseInterface(REQUEST, network);
    assert.deepEqual(byDefault.found && [byDefault.interface.name, byDefault.addresses.ipv4], [
      'plug0',
      parseAddr('10.9.8.7'),
    ]);
    const reached = chooseInterface({ ...REQUEST, ifaceCanReach: parseAddr('192.168.77.99') }, network);
    assert.deepEqual(reached.found && [reached.interface.name, reached.addresses.ipv4], [
      'eth0',
      parseAddr('192.168.77.1'),
    ]);
  });

  it('finds its own address, and says that there is no route', async () => {
    await using host = await openRealHost();
    const { netns } = host;
    const own = parseAddr('192.168.77.1');
    const network = await readHostNetwork(signal, { netns, canReach: own });
    const choice = chooseInterface({ ...REQUEST, ifaceCanReach: own }, network);
    assert.deepEqual(choice.found && [choice.interface.name, choice.addresses.ipv4], ['eth0', own]);

    for (const text of ['198.51.100.1', '2001:db8::1']) {
      const unreachable = await readHostNetwork(signal, { netns, canReach: parseAddr(text) });
      assert(unreachable.canReach?.ok === false);
      assert.match(unreachable.canReach.error, /unreachable/i);
    }
    assert.deepEqual(network.defaultDevices, { ipv4: [], ipv6: [] });
  });
});
