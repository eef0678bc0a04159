import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatIpv4, parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import {
  bridgeScript,
  containerAddress,
  containerScript,
  createScript,
  namespacesOf,
  planTopology,
  stationScript,
} from './namespaces.ts';

const network = { subnet: parsePrefix4('10.244.7.0/24')!, gateway: parseIpv4('10.244.7.1')!, mtuBytes: 1472 };

describe('planTopology', () => {
  it('names namespaces, devices and addresses', () => {
    const plan = planTopology({ id: 'a1', hosts: 2, containersPerHost: 1 });
    assert.deepEqual(namespacesOf(plan), ['weft-a1-net', 'weft-a1-h1', 'weft-a1-h1c1', 'weft-a1-h2', 'weft-a1-h2c1']);
    assert.deepEqual(
      plan.hosts.map((host) => formatIpv4(host.address)),
      ['192.168.77.1', '192.168.77.2'],
    );
    assert.match(createScript(plan), /^netns add weft-a1-net\n/);
    assert.match(stationScript(plan, plan.hosts[1]!), /^address add 192\.168\.77\.2\/24 dev eth0$/m);
  });

  it('needs no ARP between the hosts of a large lab', () => {
    const small = planTopology({ id: 'a1', hosts: 16 });
    assert.doesNotMatch(stationScript(small, small.hosts[0]!), /neighbour/);
    const large = planTopology({ id: 'a1', hosts: 17 });
    const script = stationScript(large, large.hosts[0]!);
    assert.equal(script.match(/^neighbour add /gm)?.length, 16);
    assert.match(script, /^neighbour add 192\.168\.77\.17 lladdr 02:00:c0:a8:4d:11 dev eth0 nud permanent$/m);
    assert.match(createScript(large), /peer name eth0 address 02:00:c0:a8:4d:11 mtu 1500 netns weft-a1-h17$/m);
  });

  it('keeps addresses apart and device names within the 15 bytes of IFNAMSIZ up to the largest lab', () => {
    const plan = planTopology({ id: '0123456789abcdef', hosts: 250, containersPerHost: 200 });
    const addresses = new Set(plan.hosts.map((host) => host.address));
    assert.equal(addresses.size, 250);
    assert.equal(new Set(namespacesOf(plan)).size, 1 + 250 * 201);
    const devices = plan.hosts.flatMap((host) => [host.switchPort, ...host.containers.map((one) => one.hostDevice)]);
    assert.ok(devices.every((name) => name.length <= 15));
  });

  it('says which option is out of range', () => {
    assert.throws(() => planTopology({ id: 'a', hosts: 0 }), { code: 'WEFT_USAGE', message: /number of hosts 0/ });
    assert.throws(() => planTopology({ id: 'a', hosts: 1.5 }), { code: 'WEFT_USAGE' });
    assert.throws(() => planTopology({ id: 'a b', hosts: 1 }), { code: 'WEFT_USAGE', message: /"a b"/ });
    assert.throws(() => planTopology({ id: 'a', hosts: 1, underlayMtuBytes: 100 }), { code: 'WEFT_USAGE' });
    assert.throws(() => planTopology({ id: 'a', hosts: 2, backToBack: true, underlay: 'switch' }), {
      code: 'WEFT_USAGE',
      message: /no switch between them/,
    });
  });
});

describe('containers of a host', () => {
  it('have the gateway of FLANNEL_SUBNET and the addresses after it', () => {
    const host = planTopology({ id: 'a1', hosts: 1 }).hosts[0]!;
    assert.match(bridgeScript(host, network), /^address add 10\.244\.7\.1\/24 dev cni0$/m);
    assert.equal((bridgeScript(host, network).match(/mtu 1472/g) ?? []).length, 5);
    assert.equal(formatIpv4(containerAddress(network, 1)), '10.244.7.3');
    assert.match(
      containerScript(network, containerAddress(network, 0)),
      /^route add default via 10\.244\.7\.1 dev eth0$/m,
    );
  });

  it('stop before the broadcast address', () => {
    const small = { ...network, subnet: parsePrefix4('10.244.7.0/29')! };
    assert.equal(formatIpv4(containerAddress(small, 4)), '10.244.7.6');
    assert.throws(() => containerAddress(small, 5), { code: 'WEFT_USAGE' });
  });
});
