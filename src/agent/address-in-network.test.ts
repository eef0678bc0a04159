import assert from 'node:assert/strict';
import { it } from 'node:test';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { describeAddressesInNetwork } from './address-in-network.ts';

const NET_CONF =
  '{"Network": "10.0.0.0/8", "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0", "Backend": {"Type": "vxlan"}}';

function said(validation: 'full' | 'kube', ipv4: string, published = ipv4): string[] {
  const config = parseNetConf(NET_CONF, { source: 'test', validation, backends: backendKind });
  const of = (text: string) => ({ ipv4: parseIpv4(text), ipv6: parseIpv6('fd00::1') });
  const external = { name: 'eth0', addresses: of(ipv4), publicAddresses: of(published) };
  return describeAddressesInNetwork(config, external, validation === 'full');
}

it('says of an own address in the network what others make of it, once', () => {
  for (const validation of ['full', 'kube'] as const) assert.deepEqual(said(validation, '192.168.0.1'), []);
  assert.deepEqual(said('full', '10.1.0.7'), [], 'flannel’s own sample');
  const [planned] = said('full', '10.10.0.7');
  assert.match(
    planned!,
    /^10\.10\.0\.7, the address of this host \(eth0\), lies in the IPv4 network 10\.0\.0\.0\/8, .* refuse /,
  );
  const [unplanned, ...more] = said('kube', '10.1.0.7');
  assert.match(unplanned!, /^10\.1\.0\.7, .* no Node has a pod CIDR around it/);
  assert.deepEqual(more, []);
  assert.equal(said('kube', '192.168.0.1', '10.1.0.7').length, 1);
});
