import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { STORE_ADDRESS } from '../../src/lab/namespaces.ts';
import { type LabHost, type Place, Topology } from '../../src/lab/topology.ts';
import { OuterFilters } from '../../src/linux/outer-filters.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually } from './waiting.ts';

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
    // Probes of the agents would be counted too.
    const options = { hosts: 2, containersPerHost: 1, store: true, netConf, agentFlags: ['--probe=off'] };
    await using overlay = await Overlay.create(options, signal);
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

  it('vxlan: does not get in with --source-check=strict, while nodes do, also those that come later', async () => {
    const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } });
    const options = { hosts: 2, containersPerHost: 1, store: true, netConf, agentFlags: ['--source-check=strict'] };
    await using overlay = await Overlay.create(options, signal);
    const { topology } = overlay;
    const [peer, host] = topology.hosts as readonly [LabHost, LabHost];
    const [victim, friend] = [host.containers[0]!, peer.containers[0]!];
    await eventually('nodes get in', async () =>
      (await ping(topology, friend, addressOf(victim))).ok ? true : undefined,
    );
    const table = ['nft', 'list', 'table', 'inet', 'weft_sources_10_244_0_0_16'];
    const dropped = async (): Promise<number> => {
      const { stdout } = await topology.exec(host, table);
      return Number(/udp dport 8472 ip saddr != @peers4 counter packets (\d+)/.exec(stdout)?.[1]);
    };
    const send = async (from: Place): Promise<void> => {
      const argv = ['socat', '-u', 'STDIN', `UDP4-SENDTO:${formatIpv4(host.address)}:8472`];
      await topology.exec(from, argv, { stdin: 'E'.repeat(40) });
    };
    assert.equal(await dropped(), 0);
    await send(topology.store!);
    assert.equal(await dropped(), 1);
    await send(peer);
    assert.equal(await dropped(), 1);
    await topology.exec(host, ['nft', 'delete', 'table', 'inet', 'weft_sources_10_244_0_0_16']);
    await eventually('the filter is back', async () =>
      (await topology.exec(host, table, { okExitCodes: 'any' })).exitCode === 0 ? true : undefined,
    );
    await send(topology.store!);
    assert.equal(await dropped(), 1);
    assert.ok((await ping(topology, friend, addressOf(victim))).ok);

    const { child } = overlay.agents[host.index]!;
    child.kill('SIGTERM');
    await child.exited;
    await overlay.startAgent(host, signal, ['--source-check=off']);
    await eventually('the filter is gone', async () =>
      (await topology.exec(host, table, { okExitCodes: 'any' })).exitCode === 0 ? undefined : true,
    );
  });

  it('ipip: only what nodes send passes the agent’s filter', async () => {
    await using topology = await Topology.create({ hosts: 2, containersPerHost: 0, store: true, purpose: 'test' });
    const [peer, host] = topology.hosts as readonly [LabHost, LabHost];
    const filters = new OuterFilters({ netns: host.namespace });
    const name = 'weft_sources_10_244_0_0_16';
    const filter = { name, traffic: [{ protocol: 'ipip' }], sources: [] } as const;
    await filters.replace(filter, signal);
    await filters.replace(filter, signal);
    const dropped = async (): Promise<number> => {
      const { stdout } = await topology.exec(host, ['nft', 'list', 'table', 'inet', name]);
      return Number(/ip protocol (?:4|ipencap) ip saddr != @peers4 counter packets (\d+)/.exec(stdout)?.[1]);
    };
    const send = async (from: Place): Promise<void> => {
      const argv = ['socat', '-u', 'STDIN', `IP4-SENDTO:${formatIpv4(host.address)}:4`];
      await topology.exec(from, argv, { stdin: 'E'.repeat(40) });
    };
    await send(peer);
    assert.equal(await dropped(), 1);
    await filters.change(name, [peer.address], [], signal);
    await send(peer);
    assert.equal(await dropped(), 1);
    await send(topology.store!);
    assert.equal(await dropped(), 2);
    await filters.change(name, [topology.store!.address], [peer.address], signal);
    await send(topology.store!);
    await send(peer);
    assert.equal(await dropped(), 3);
    assert.deepEqual(await filters.names(signal), [name]);
    await filters.remove(name, signal);
    assert.deepEqual(await filters.names(signal), []);
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
