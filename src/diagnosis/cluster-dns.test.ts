import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatAddr } from '../ip/address.ts';
import { clusterDnsOf, dnsQuery, readDnsAnswer } from './cluster-dns.ts';

describe('DNS of a cluster', () => {
  it('is where the kubelet says, in YAML or JSON', () => {
    const shown = (text: string): string | undefined => {
      const found = clusterDnsOf(text);
      return found && `${formatAddr(found.server)} ${found.domain}`;
    };
    const kubeadm = 'cgroupDriver: systemd\nclusterDNS:\n- 10.96.0.10\nclusterDomain: cluster.local\n';
    assert.equal(shown(kubeadm), '10.96.0.10 cluster.local');
    assert.equal(
      shown('clusterDNS:\n  - "fd00::a"\n  - 10.96.0.10\nclusterDomain: k8s.example.org.\n'),
      'fd00::a k8s.example.org',
    );
    assert.equal(shown('clusterDNS: [10.43.0.10]\n'), '10.43.0.10 cluster.local');
    assert.equal(
      shown('{\n "clusterDNS": [\n  "10.96.0.10"\n ],\n "clusterDomain": "c.local"\n}'),
      '10.96.0.10 c.local',
    );
    assert.equal(
      shown('{"kind":"KubeletConfiguration","clusterDNS":["fd00::a","10.96.0.10"],"clusterDomain":"k8s.local."}'),
      'fd00::a k8s.local',
    );
    assert.equal(shown('{"clusterDomain":"c.local","clusterDNS":["10.96.0.10"]}\n'), '10.96.0.10 c.local');
    assert.equal(shown(`${kubeadm.trimEnd()} # of kubeadm\n`), '10.96.0.10 cluster.local');
    for (const none of ['', 'clusterDNS: []\n', 'clusterDomain: cluster.local\n', '# clusterDNS: 10.96.0.10\n'])
      assert.equal(shown(none), undefined, none);
  });

  it('is asked, and its addresses are read', () => {
    const query = dnsQuery(7, 'kubernetes.default.svc.cluster.local', 'A');
    assert.equal(Buffer.from(query).toString('latin1', 12, 23), '\x0akubernetes');
    const answerOf = (code: number, ...records: (readonly [type: number, data: number[]])[]): Uint8Array => {
      const head = Buffer.from(query);
      head.writeUInt16BE(0x8180 | code, 2);
      head.writeUInt16BE(records.length, 6);
      const written = records.map(([type, data]) =>
        Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 5, 0, data.length, ...data]),
      );
      return Buffer.concat([head, ...written]);
    };
    const read = (bytes: Uint8Array) => {
      const answer = readDnsAnswer(bytes, 7);
      return answer && [answer.code, ...answer.addresses.map(formatAddr)];
    };
    assert.deepEqual(read(answerOf(0, [5, [1, 97, 0]], [1, [10, 96, 0, 1]])), [0, '10.96.0.1']);
    assert.deepEqual(read(answerOf(0, [28, [0xfd, ...Array(14).fill(0), 1]])), [0, 'fd00::1']);
    assert.deepEqual(read(answerOf(3)), [3]);
    assert.equal(read(query), undefined, 'a question is no answer');
    assert.equal(readDnsAnswer(answerOf(0), 8), undefined, 'the answer to another one');
  });

  it('may answer anything', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 4, maxLength: 60 }), (bytes) => {
        bytes.set([0, 7, 0x80], 0);
        readDnsAnswer(bytes, 7);
      }),
    );
  });
});
