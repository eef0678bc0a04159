import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { STORE_ADDRESS } from '../../src/lab/namespaces.ts';
import { type LabHost, type Place, Topology } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';

const { signal } = new AbortController();

/** Sets the rules that SECURITY.md gives operators, with these hosts for its example nodes. */
async function setFilter(topology: Topology, host: LabHost, peer: LabHost): Promise<void> {
  const text = readFileSync(new URL('../../SECURITY.md', import.meta.url), 'utf8');
  const [, rules = ''] = /^```nft\n(.*?)^```$/ms.exec(text) ?? [];
  assert.ok(rules.includes('192.0.2.1, 192.0.2.2'), 'the rules in SECURITY.md');
  const nodes = [host, peer].map(({ address }) => formatIpv4(address)).join(', ');
  await topology.exec(host, ['nft', '-f', '-'], { stdin: rules.replace('192.0.2.1, 192.0.2.2', nodes) });
}

/** Somebody on the underlay who is no node. */
describe('a stranger who sends what the kernel takes for packets of nodes', () => {
  it('vxlan: gets in, as with flannel, and does not behind the filter of SECURITY.md, while nodes do', async () => {
    const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } });
    await using overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, store: true, netConf }, signal);
    const { topology } = overlay;
    const [peer, host] = topology.hosts as readonly [LabHost, LabHost];
    const [victim, friend] = [host.containers[0]!, peer.containers[0]!];
    const stranger = topology.store!;
    const target = addressOf(victim);
    const read = async (path: string): Promise<string> =>
      (await topology.exec(host, ['cat', `/sys/class/net/flannel.1/${path}`])).stdout.trim();
    const received = async (): Promise<number> => Number(await read('statistics/rx_packets'));
    const ends = `local ${formatIpv4(STORE_ADDRESS)} remote ${formatIpv4(host.address)}`;
    await topology.ipBatch(
      stranger,
      `link add tunnel type vxlan id 1 dev eth0 ${ends} dstport 8472 nolearning\n` +
        'link set tunnel addrgenmode none\naddress add 10.244.254.1/32 dev tunnel\nlink set tunnel up\n' +
        `route add ${target}/32 dev tunnel src 10.244.254.1\n` +
        `neigh add ${target} lladdr ${await read('address')} dev tunnel\n`,
    );
    /** How many packets have come out of the host's device because of one attempt; the answer has no way back. */
    const attempt = async (): Promise<number> => {
      const before = await received();
      assert.equal((await ping(topology, stranger, target, '-W', '1')).ok, false);
      return (await received()) - before;
    };
    assert.equal(await attempt(), 1);

    await setFilter(topology, host, peer);
    assert.equal(await attempt(), 0);
    const before = await received();
    assert.ok((await ping(topology, friend, target)).ok);
    assert.ok((await received()) > before);
  });

  it('ipip: passes no filter of SECURITY.md, while nodes do', async () => {
    await using topology = await Topology.create({ hosts: 2, containersPerHost: 0, store: true, purpose: 'test' });
    const [peer, host] = topology.hosts as readonly [LabHost, LabHost];
    await topology.exec(host, ['nft', '-f', '-'], {
      stdin: `table ip seen {
        counter ipip {}
        chain in { type filter hook input priority 0; ip protocol 4 counter name "ipip"; }
      }`,
    });
    const seen = async (): Promise<number> => {
      const { stdout } = await topology.exec(host, ['nft', 'list', 'counter', 'ip', 'seen', 'ipip']);
      return Number(/packets (\d+)/.exec(stdout)?.[1]);
    };
    const send = async (from: Place): Promise<void> => {
      const argv = ['socat', '-u', 'STDIN', `IP4-SENDTO:${formatIpv4(host.address)}:4`];
      await topology.exec(from, argv, { stdin: 'E'.repeat(40) });
    };
    const stranger = topology.store!;
    await send(stranger);
    assert.equal(await seen(), 1);
    await setFilter(topology, host, peer);
    await send(stranger);
    await send(peer);
    assert.equal(await seen(), 2, 'the one of the node');
  });
});
