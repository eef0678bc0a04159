import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatAddr, type IpAddr, parseAddr, parsePrefix } from '../ip/address.ts';
import type { LeaseKey } from '../lease/lease.ts';
import { OuterSources, outerFilterName, outerTraffic } from './outer-sources.ts';
import type { OuterFilterPort } from './ports.ts';

const addr = (text: string): IpAddr => parseAddr(text) ?? assert.fail(text);
const key = (n: number) => `10.244.${n}.0-24` as LeaseKey;
const NAME = 'weft_sources_10_244_0_0_16';

function rig() {
  const said: string[] = [];
  const calls: string[] = [];
  const kernel = new Map<string, Set<string>>();
  const state = { failure: undefined as string | undefined, looks: 0 };
  const filters: OuterFilterPort = {
    replace: async ({ name, traffic, sources }) => {
      if (state.failure !== undefined) throw new Error(state.failure);
      calls.push(`replace ${traffic.map(({ protocol }) => protocol)} ${sources.map(formatAddr)}`);
      kernel.set(name, new Set(sources.map(formatAddr)));
    },
    change: async (name, added, removed) => {
      const there = kernel.get(name);
      if (there === undefined) throw new Error('no such table');
      calls.push(`+${added.map(formatAddr)} -${removed.map(formatAddr)}`);
      for (const one of added) there.add(formatAddr(one));
      for (const one of removed) there.delete(formatAddr(one));
    },
    names: async () => {
      state.looks++;
      return [...kernel.keys()];
    },
    remove: async (name) => void kernel.delete(name),
  };
  const log = (text: string): void => void said.push(text);
  const sources = new OuterSources({ filters, name: NAME, log: { info: log, warn: log, error: log }, lookMs: 5 });
  const until = async (isSo: () => boolean): Promise<void> => {
    const deadline = performance.now() + 20_000;
    while (!isSo()) {
      assert(performance.now() < deadline, `${calls.join('; ')} | ${said.join('; ')}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  const there = (): string => [...(kernel.get(NAME) ?? ['none'])].sort().join();
  return { sources, said, calls, kernel, state, until, there, looks: () => state.looks };
}

describe('OuterSources', () => {
  it('lets in whom it knew when it began, and follows each peer by that peer alone', async () => {
    const r = rig();
    await using sources = r.sources;
    sources.set([{ protocol: 'ipip' }]);
    sources.setPeer(key(2), [addr('192.0.2.2')]);
    sources.setPeer(key(3), [addr('192.0.2.3'), addr('2001:db8::3')]);
    await r.until(() => r.there() === '192.0.2.2,192.0.2.3,2001:db8::3');
    assert.deepEqual(r.calls, ['replace ipip 192.0.2.2,192.0.2.3,2001:db8::3'], 'none of them was ever left out');
    sources.setPeer(key(2), [addr('192.0.2.9')]);
    await r.until(() => r.there() === '192.0.2.3,192.0.2.9,2001:db8::3');
    assert.equal(r.calls.at(-1), '+192.0.2.9 -192.0.2.2');
    sources.setPeer(key(4), [addr('192.0.2.3')]);
    sources.setPeer(key(3), undefined);
    await r.until(() => r.there() === '192.0.2.3,192.0.2.9');
  });

  it('puts a filter back that somebody removes, and goes on when it could not be made', async () => {
    const r = rig();
    await using sources = r.sources;
    r.state.failure = 'nft: not found';
    sources.set([{ protocol: 'udp', port: 8472 }]);
    sources.setPeer(key(2), [addr('192.0.2.2')]);
    await r.until(() => r.said.length > 0);
    assert.match(r.said.join(), /^The outer source of tunnelled packets is not checked: nft: not found/);
    r.state.failure = undefined;
    await r.until(() => r.there() === '192.0.2.2' && r.said.length === 2);
    r.kernel.clear();
    await r.until(() => r.there() === '192.0.2.2');
    assert.match(r.said.at(-1)!, /^Restored the filter weft_sources_10_244_0_0_16/);
  });

  it('removes the filter of an earlier run where nothing is to be checked', async () => {
    const r = rig();
    await using sources = r.sources;
    r.kernel.set(NAME, new Set(['192.0.2.2']));
    r.kernel.set('weft_sources_10_7_0_0_16', new Set());
    sources.set([]);
    sources.setPeer(key(2), [addr('192.0.2.2')]);
    await r.until(() => r.there() === 'none');
    assert.deepEqual([...r.kernel.keys()], ['weft_sources_10_7_0_0_16'], 'that of another network stays');
    const looks = r.looks();
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.equal(r.looks(), looks, 'nobody looks for what is not wanted');
    assert.deepEqual(r.said, []);
    sources.set([{ protocol: 'ipip' }]);
    await r.until(() => r.there() === '192.0.2.2');
  });

  it('is named by the network, and checks what the backend and --source-check say', () => {
    assert.equal(outerFilterName([parsePrefix('10.244.0.0/16')!]), NAME);
    assert.equal(outerFilterName([parsePrefix('fd10:244::/48')!]), 'weft_sources_fd10_244_48');
    const traffic = [{ protocol: 'ipip' }] as const;
    const checked = (from: 'loose' | 'strict') =>
      (['off', 'loose', 'strict'] as const).filter((check) => outerTraffic({ traffic, from }, check).length > 0);
    assert.deepEqual(checked('loose'), ['loose', 'strict']);
    assert.deepEqual(checked('strict'), ['strict']);
    assert.deepEqual(outerTraffic(undefined, 'strict'), []);
  });
});
