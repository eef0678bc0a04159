import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { run } from '../../src/linux/run.ts';
import { type Namespace, withNamespace } from './traffic-namespace.ts';

/** What the features decide: where super-packets are cut, and who writes checksums. */
const DECISIVE = ['tx-tcp-segmentation', 'tx-checksum-ipv4', 'tx-checksum-ip-generic'];
const VETH = 'veth0';
const BRIDGE = 'bridge0';
const TUN = 'tun0';

interface Facts {
  readonly index: number;
  readonly isEthernet: boolean;
  readonly macAddress: readonly number[];
  readonly mtuBytes: number;
  readonly driver: string;
  readonly features: readonly string[];
}

async function openNamespace(): Promise<Namespace> {
  const namespace = await withNamespace();
  try {
    await run(['ip', '-n', namespace.name, '-batch', '-'], {
      stdin: [
        `link add ${VETH} type veth peer name veth1`,
        `link add ${BRIDGE} type bridge`,
        `tuntap add dev ${TUN} mode tun`,
      ].join('\n'),
    });
    return namespace;
  } catch (error) {
    await namespace[Symbol.asyncDispose]();
    throw error;
  }
}

/** `readDeviceFacts` looks at the namespace of its process. */
async function readDeviceFacts(netns: string, device: string): Promise<Facts | number> {
  const source = `
    import { readDeviceFacts } from '${new URL('../../src/linux/ethtool.ts', import.meta.url).href}';
    const facts = readDeviceFacts('${device}');
    console.log(JSON.stringify(typeof facts === 'number' ? facts : { ...facts, features: [...facts.features] }));`;
  const argv = [process.execPath, '--no-warnings', '--input-type=module', '-e', source];
  return JSON.parse((await run(argv, { netns })).stdout) as Facts | number;
}

async function factsOf(netns: string, device: string): Promise<Facts> {
  const facts = await readDeviceFacts(netns, device);
  assert.ok(typeof facts !== 'number', `${device}: ${facts}`);
  return facts;
}

/** As ethtool prints them: `\ttx-tcp-segmentation: off [requested on]`. Lines further left may be headings of its own. */
async function printedFeatures(netns: string, device: string): Promise<Map<string, boolean>> {
  const { stdout } = await run(['ethtool', '-k', device], { netns });
  const printed = stdout.matchAll(/^\t([\w-]+): (on|off)\b/gm);
  return new Map([...printed].map(([, name, state]) => [name!, state === 'on']));
}

async function assertAgrees(netns: string, device: string): Promise<ReadonlySet<string>> {
  const printed = await printedFeatures(netns, device);
  for (const name of DECISIVE) assert.ok(printed.has(name), `ethtool -k ${device} says nothing about ${name}`);
  const features = new Set((await factsOf(netns, device)).features);
  assert.deepEqual(new Map([...printed.keys()].map((name) => [name, features.has(name)])), printed, device);
  return features;
}

describe('readDeviceFacts', () => {
  it('has the features that ethtool prints, also after one was switched off', async () => {
    await using namespace = await openNamespace();
    const netns = namespace.name;
    for (const device of [VETH, BRIDGE, TUN]) {
      const before = await assertAgrees(netns, device);
      await run(['ethtool', '-K', device, 'tso', 'off'], { netns });
      const after = await assertAgrees(netns, device);
      // Nobody is attached to the TUN device, so that it has no offload to switch off.
      assert.equal(before.has('tx-tcp-segmentation'), device !== TUN, device);
      assert.equal(after.has('tx-tcp-segmentation'), false, device);
      assert.equal(after.has('tx-checksum-ip-generic'), device !== TUN, device);
    }
  });

  it('has the index of the device in its own namespace, and whether frames have an Ethernet header', async () => {
    await using namespace = await openNamespace();
    const netns = namespace.name;
    const { stdout } = await run(['ip', '-n', netns, '-j', 'link']);
    const links = JSON.parse(stdout) as readonly { ifname: string; ifindex: number; link_type: string }[];
    const found: string[] = [];
    const expected: string[] = [];
    for (const { ifname, ifindex, link_type } of links) {
      const { index, isEthernet } = await factsOf(netns, ifname);
      found.push(`${ifname} ${index} ${isEthernet}`);
      expected.push(`${ifname} ${ifindex} ${link_type === 'ether'}`);
    }
    assert.deepEqual(found, expected);
    const types = new Map(links.map(({ ifname, link_type }) => [ifname, link_type]));
    assert.deepEqual(
      [VETH, BRIDGE, TUN, 'lo'].map((name) => types.get(name)),
      ['ether', 'ether', 'none', 'loopback'],
    );
  });

  it('has the MAC address, the MTU and the driver', async () => {
    await using namespace = await openNamespace();
    const netns = namespace.name;
    await run(['ip', '-n', netns, 'link', 'set', VETH, 'address', '02:00:c0:a8:4d:01', 'mtu', '1400']);
    const { macAddress, mtuBytes, driver } = await factsOf(netns, VETH);
    assert.deepEqual([macAddress, mtuBytes, driver], [[2, 0, 0xc0, 0xa8, 0x4d, 1], 1_400, 'veth']);
    assert.deepEqual([(await factsOf(netns, TUN)).driver, (await factsOf(netns, 'lo')).driver], ['tun', '']);
  });

  it('has the features of one device after another, and index and first address alone', async () => {
    await using namespace = await openNamespace();
    const netns = namespace.name;
    await run(['ip', '-n', netns, 'address', 'add', '192.0.2.1/24', 'dev', VETH]);
    await run(['ip', '-n', netns, 'address', 'add', '192.0.2.2/24', 'dev', VETH]);
    const source = `
      import { readDeviceAddress, readDeviceFacts, readDeviceIndex } from '${new URL('../../src/linux/ethtool.ts', import.meta.url).href}';
      const featuresOf = (name) => [...readDeviceFacts(name).features];
      const names = ['${VETH}', '${TUN}', 'nothing0'];
      console.log(JSON.stringify({
        features: ['${VETH}', '${TUN}', '${VETH}'].map(featuresOf),
        indices: names.map(readDeviceIndex), addresses: names.map(readDeviceAddress),
      }));`;
    const argv = [process.execPath, '--no-warnings', '--input-type=module', '-e', source];
    const { features, indices, addresses } = JSON.parse((await run(argv, { netns })).stdout);
    const [veth, tun] = [await factsOf(netns, VETH), await factsOf(netns, TUN)];
    assert.deepEqual(features, [veth.features, tun.features, veth.features]);
    assert.deepEqual(indices, [veth.index, tun.index, -19]);
    assert.deepEqual(addresses, [0xc000_0201, -99, -19]); // EADDRNOTAVAIL, ENODEV
  });

  it('says that there is no such device, also when another namespace has it', async () => {
    await using namespace = await openNamespace();
    await using empty = await withNamespace();
    assert.equal(await readDeviceFacts(namespace.name, 'nothing0'), -19); // ENODEV
    assert.equal(await readDeviceFacts(empty.name, BRIDGE), -19);
    assert.ok(typeof (await readDeviceFacts(empty.name, 'lo')) === 'object');
  });
});
