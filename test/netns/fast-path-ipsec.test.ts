import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;
const OPEN = 'Packets take the fast path';
const CLOSED = /All packets pass through the forwarder: .*IPsec/;

describe('a host with IPsec policies, for which the fast path is closed', () => {
  let overlay: Overlay;
  let hosts: readonly [LabHost, LabHost];

  before(async () => {
    overlay = await Overlay.create(
      { hosts: 2, containersPerHost: 1, underlay: 'native', agentFlags: ['--fast-path=auto'] },
      signal,
    );
    hosts = overlay.topology.hosts as [LabHost, LabHost];
    for (const host of hosts) await said(host, (lines) => lines.at(-1)?.includes(OPEN) === true);
  });
  after(() => overlay?.[Symbol.asyncDispose]());

  /** Waits until what a host's agent has said about the fast path, oldest first, fits. */
  async function said(host: LabHost, fits: (lines: readonly string[]) => boolean): Promise<void> {
    await eventually('the agent says so', async () => {
      const lines = (await overlay.log(host)).split('\n');
      return fits(lines.filter((line) => line.includes(OPEN) || CLOSED.test(line))) || undefined;
    });
  }

  const pings = async (): Promise<boolean> => {
    const [a, b] = [hosts[0].containers[0]!, hosts[1].containers[0]!];
    return (await ping(overlay.topology, a, addressOf(b), '-W', '1')).ok;
  };
  const xfrm = async (host: LabHost, ...words: readonly string[]): Promise<void> => {
    await overlay.topology.exec(host, ['ip', 'xfrm', 'policy', ...words]);
  };
  const metrics = async (host: LabHost): Promise<string> => {
    const argv = ['socat', '-t', '5', 'STDIO', 'TCP4:127.0.0.1:8081'];
    const stdin = 'GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n';
    return (await overlay.topology.exec(host, argv, { stdin })).stdout;
  };

  for (const { what, at, direction } of [
    { what: 'out: no packet leaves in clear text', at: 0, direction: 'out' },
    { what: 'in: no packet in clear text enters', at: 1, direction: 'in' },
  ] as const) {
    it(`block ${what}, and it opens again when the policy is gone`, async () => {
      const host = hosts[at]!;
      const [from, to] = hosts.map(({ address }) => formatIpv4(address));
      const policy = ['dir', direction, 'src', from!, 'dst', to!, 'proto', 'udp', 'dport', '8285'];
      assert.ok(await pings());
      await xfrm(host, 'add', ...policy, 'action', 'block');
      await said(host, (lines) => CLOSED.test(lines.at(-1) ?? ''));
      assert.match(await metrics(host), /^weft_fast_path 0$/m);
      assert.match(await metrics(host), /^weft_fast_path_obstacle\{reason="ipsec-policy"\} 1$/m);
      for (let round = 0; round < 3; round++) assert.equal(await pings(), false);
      await xfrm(host, 'delete', ...policy);
      await said(host, (lines) => lines.at(-1)?.includes(OPEN) === true);
      assert.match(await metrics(host), /^weft_fast_path 1$/m);
      assert.ok(await pings());
    });
  }

  it('a policy about somebody else closes it too: transforms are not looked into', async () => {
    const words = ['dir', 'fwd', 'src', '198.51.100.1', 'dst', '198.51.100.2'];
    await xfrm(hosts[0], 'add', ...words);
    await said(hosts[0], (lines) => CLOSED.test(lines.at(-1) ?? ''));
    assert.ok(await pings());
    await xfrm(hosts[0], 'delete', ...words);
    await said(hosts[0], (lines) => lines.at(-1)?.includes(OPEN) === true);
  });

  it('a default of block is a policy', async () => {
    await xfrm(hosts[0], 'setdefault', 'fwd', 'block');
    await said(hosts[0], (lines) => /by default/.test(lines.at(-1) ?? ''));
    await xfrm(hosts[0], 'setdefault', 'fwd', 'accept');
    await said(hosts[0], (lines) => lines.at(-1)?.includes(OPEN) === true);
  });
});
