import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { FAST_PATH_MODES } from '../../src/dataplane/fast-path/mode.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { EchoConnection, serveEcho } from './echo-connection.ts';
import { Overlay } from './overlay.ts';

/** How long the agent is away: the time of an image pull or a slow rolling update. */
const DOWN_MS = 3_000;

interface HostState {
  readonly link: unknown;
  readonly addresses: unknown;
  readonly routes: unknown;
  readonly rules: string;
  readonly subnetFile: string;
}

for (const fastPath of FAST_PATH_MODES)
  describe(`an agent that stops and starts, fast path ${fastPath}`, () => {
    let overlay: Overlay;
    let topology: Topology;
    const signal = new AbortController().signal;

    before(async () => {
      overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, agentFlags: ['--fast-path', fastPath] }, signal);
      ({ topology } = overlay);
      for (const container of topology.containers) await serveEcho(topology, container);
    });
    after(() => overlay?.[Symbol.asyncDispose]());

    async function stateOf(host: LabHost): Promise<HostState> {
      const ip = async (...words: string[]): Promise<unknown> =>
        JSON.parse((await topology.exec(host, ['ip', '-j', '-d', ...words])).stdout);
      const [link] = (await ip('link', 'show', 'flannel0')) as Record<string, unknown>[];
      const [address] = (await ip('-4', 'address', 'show', 'flannel0')) as Record<string, unknown>[];
      const routes = (await ip('-4', 'route', 'show', 'table', 'main')) as Record<string, unknown>[];
      const rules = await topology.exec(host, ['iptables-save']);
      return {
        link: {
          index: link!.ifindex,
          mtu: link!.mtu,
          kind: link!.linkinfo,
          up: (link!.flags as string[]).includes('UP'),
        },
        addresses: address?.addr_info,
        // A TUN device without a process has no carrier, which the kernel notes at its routes without taking them away.
        routes: routes.map(({ dst, dev, protocol, scope }) => ({ dst, dev, protocol, scope })),
        rules: rules.stdout.replace(/^#.*\n/gm, '').replace(/\[\d+:\d+\]/g, ''),
        subnetFile: await readFile(overlay.agents[host.index]!.subnetFile, 'utf8'),
      };
    }

    for (const [hostIndex, how] of [
      [0, 'SIGTERM'],
      [1, 'SIGKILL'],
    ] as const) {
      it(`keeps TCP connections, kernel state and subnet across ${how}`, async (t) => {
        const host = topology.hosts[hostIndex]!;
        const [a, b] = [topology.hosts[0]!.containers[0]!, topology.hosts[1]!.containers[0]!];
        await using forth = await EchoConnection.open(topology, a, b);
        await using back = await EchoConnection.open(topology, b, a);
        const before = await stateOf(host);

        const { child } = overlay.agents[hostIndex]!;
        child.kill(how);
        const exit = await child.exited;
        assert.deepEqual(exit, how === 'SIGTERM' ? { code: 0, signal: undefined } : { code: undefined, signal: how });
        const during = await stateOf(host);
        assert.deepEqual(during, before);
        assert.match(before.rules, /FLANNEL-POSTRTG/);
        await sleep(DOWN_MS);
        assert.deepEqual(await stateOf(host), before);
        const sentWhileDown = forth.sent;

        await overlay.startAgent(host, signal);
        await forth.flowing();
        await back.flowing();
        assert.ok(forth.alive && back.alive);
        assert.ok(forth.feed.seen.length >= sentWhileDown, 'what was written while the agent was down has arrived');
        assert.deepEqual(await stateOf(host), before);
        t.diagnostic(
          `${how}, ${DOWN_MS} ms down: longest gap ${forth.longestGapMs()} ms forth, ${back.longestGapMs()} ms back`,
        );
      });
    }
  });
