import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';

const signal = new AbortController().signal;
/** Not the default: the rules ask the backend. */
const PORT = 8297;

/** Connection tracking's entries, of the tunnel and of a flow between containers. */
async function tracked(topology: Topology, host: LabHost): Promise<{ tunnel: string[]; containers: string[] }> {
  const { stdout } = await topology.exec(host, ['cat', '/proc/net/nf_conntrack']);
  const entries = stdout.split('\n');
  return {
    tunnel: entries.filter((entry) => new RegExp(` udp .*[sd]port=${PORT} `).test(entry)),
    containers: entries.filter((entry) => / icmp .*src=10\.244\./.test(entry)),
  };
}

/** How many of the tunnel's datagrams come and go as untracked, for a firewall that looks at their state. */
async function untrackedPackets(topology: Topology, host: LabHost): Promise<number[]> {
  const counts = ['untracked-in', 'untracked-out'].map(async (name) => {
    const { stdout } = await topology.exec(host, ['nft', 'list', 'counter', 'ip', 'watch', name]);
    return Number(/packets (\d+)/.exec(stdout)?.[1]);
  });
  return Promise.all(counts);
}

/** A firewall that admits the tunnel's datagrams as part of a connection that it knows, and no others. */
async function admitEstablishedAlone(topology: Topology, host: LabHost): Promise<void> {
  const script = `
    table ip firewall {
      chain in { type filter hook input priority 10; udp dport ${PORT} ct state established accept; udp dport ${PORT} drop; }
    }`;
  await topology.exec(host, ['nft', script]);
}

async function watchStates(topology: Topology, host: LabHost): Promise<void> {
  const script = `
    table ip watch {
      counter untracked-in {}
      counter untracked-out {}
      chain in { type filter hook input priority 0; udp dport ${PORT} ct state untracked counter name "untracked-in"; }
      chain out { type filter hook output priority 0; udp sport ${PORT} ct state untracked counter name "untracked-out"; }
    }`;
  await topology.exec(host, ['nft', script]);
}

for (const [mode, enableNfTables] of [
  ['iptables', false],
  ['nftables', true],
] as const) {
  describe(`--notrack-tunnel in ${mode} mode`, () => {
    it('keeps the tunnel’s datagrams out of connection tracking, and nothing else; without it they are tracked', async () => {
      await using overlay = await Overlay.create(
        {
          hosts: 2,
          containersPerHost: 1,
          agentFlags: ['--notrack-tunnel'],
          netConf: JSON.stringify({
            Network: '10.244.0.0/16',
            EnableNFTables: enableNfTables,
            Backend: { Type: 'udp', Port: PORT },
          }),
        },
        signal,
      );
      const { topology } = overlay;
      const [host, other] = topology.hosts as [LabHost, LabHost];
      const answers = async (): Promise<void> => {
        for (const [from, to] of [
          [host, other],
          [other, host],
        ] as const) {
          const { ok, output } = await ping(topology, from.containers[0]!, addressOf(to.containers[0]!));
          assert.ok(ok, output);
        }
      };
      await watchStates(topology, host);
      await answers();
      assert.match(
        await overlay.log(host),
        new RegExp(`Keeping datagrams of UDP port ${PORT} out of connection tracking`),
      );
      const withIt = await tracked(topology, host);
      assert.deepEqual(withIt.tunnel, []);
      assert.notDeepEqual(withIt.containers, []);
      const seen = await untrackedPackets(topology, host);
      assert.ok(
        seen.every((count) => count >= 2),
        `untracked in and out: ${seen}`,
      );

      // Why it is off unless given.
      await admitEstablishedAlone(topology, host);
      const [ours, theirs] = [host.containers[0]!, other.containers[0]!];
      assert.equal((await ping(topology, ours, addressOf(theirs), '-W', '1')).ok, false);

      // What the agent of before has left is taken away by one without the option.
      const { child } = overlay.agents[host.index]!;
      child.kill('SIGTERM');
      await child.exited;
      await overlay.startAgent(host, signal, ['--notrack-tunnel=false']);
      for (const argv of [['iptables-save'], ['nft', 'list', 'ruleset']]) {
        const { stdout } = await topology.exec(host, argv);
        assert.doesNotMatch(stdout, /notrack|untrack-|UNTRACK-/);
      }
      await topology.exec(host, ['nft', 'delete', 'table', 'ip', 'watch']);
      const { ok, output } = await ping(topology, ours, addressOf(theirs));
      assert.ok(ok, output);
      const without = await tracked(topology, host);
      assert.notDeepEqual(without.tunnel, []);
      assert.notDeepEqual(without.containers, []);
    });
  });
}
