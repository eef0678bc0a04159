import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatAddr, parseAddr } from '../../ip/address.ts';
import { checkServices, clusterServices, uncheckedServices } from './test-services.ts';

const { signal } = new AbortController();
const nothing = { server: undefined, domain: undefined, readText: async () => undefined, environment: {} };
const unasked = {
  inside: () => {
    throw new Error('nobody is asked');
  },
};

describe('what weft test asks of a cluster', () => {
  it('is known from the kubelet’s configuration and the variables of a pod, on a node alone', async () => {
    const facts = {
      ...nothing,
      readText: async () => 'clusterDNS:\n- 10.96.0.10\nclusterDomain: c.example\n',
      environment: { KUBERNETES_SERVICE_HOST: '10.96.0.1' },
    };
    const node = await clusterServices({ ...facts, isNode: true });
    assert.deepEqual(
      [node?.dns && formatAddr(node.dns.server), node?.dns?.domain, node?.api && formatAddr(node.api.to)],
      ['10.96.0.10', 'c.example', '10.96.0.1'],
    );
    assert.equal(await clusterServices({ ...facts, isNode: false }), undefined);
    const told = await clusterServices({ ...facts, isNode: false, server: parseAddr('10.96.0.20')! });
    assert.deepEqual([told?.dns && formatAddr(told.dns.server), told?.api], ['10.96.0.20', undefined]);
  });

  it('is said not to be checked on a node that knows neither, as in a container without the kubelet’s files', async () => {
    const services = await clusterServices({ ...nothing, isNode: true });
    const { checks, unchecked } = await checkServices({ ...unasked, families: [4] }, services!, signal);
    assert.deepEqual(checks, []);
    assert.deepEqual(
      unchecked.map(({ name }) => name),
      ['dns', 'service'],
    );
    assert.match(unchecked[0]!.reason, /\/var\/lib\/kubelet\/config\.yaml .*--cluster-dns/);
    assert.match(unchecked[1]!.reason, /KUBERNETES_SERVICE_HOST/);
  });

  it('is said not to be checked from a container without an address of that family, or without a container', async () => {
    const [server, to] = [parseAddr('10.96.0.10')!, parseAddr('10.96.0.1')!];
    const services = { dns: { server, domain: 'cluster.local' }, api: { to, port: 443 } };
    const { checks, unchecked } = await checkServices({ ...unasked, families: [6] }, services, signal);
    assert.deepEqual(checks, []);
    assert.deepEqual(
      unchecked.map(({ name, reason }) => `${name}: ${reason}`),
      [
        'dns: containers of this host have no address like 10.96.0.10',
        'service: containers of this host have no address like 10.96.0.1',
      ],
    );
    assert.deepEqual(
      uncheckedServices(services, '--host-only').map(({ name, reason }) => [name, reason]),
      [
        ['dns', '--host-only'],
        ['service', '--host-only'],
      ],
    );
    assert.deepEqual(uncheckedServices(undefined, '--host-only'), []);
  });
});
