import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { IpPrefix } from '../ip/address.ts';
import { overlaps } from '../ip/address.ts';
import { type Ipv4Prefix, parsePrefix4 } from '../ip/prefix.ts';
import { isTunName, type NamedTun, networksBeside, ownTuns, takeTun, tunMark } from './tun-name.ts';

const net = (text: string): Ipv4Prefix => parsePrefix4(text)!;
const A = net('10.1.0.0/16');
const B = net('10.2.0.0/16');
const C = net('10.3.0.0/16');
const { signal } = new AbortController();

/** TUN devices of a host: whose network each bears, and who is attached to it. */
class Host {
  readonly tuns = new Map<string, { alias: string | undefined; attached: boolean }>();

  async tunDevices(): Promise<readonly NamedTun[]> {
    return [...this.tuns].map(([name, { alias }]) => ({ name, alias }));
  }

  takeTun(name: string): boolean {
    const found = this.tuns.get(name);
    if (found?.attached === true) return false;
    this.tuns.set(name, { alias: found?.alias, attached: true });
    return true;
  }

  /** What an agent does: takes a device and, some time later, marks it. */
  async start(network: Ipv4Prefix, earlier: readonly IpPrefix[] = []): Promise<string> {
    const name = await takeTun(this, network, earlier, signal);
    this.tuns.get(name)!.alias = tunMark(network);
    return name;
  }

  stop(name: string): void {
    this.tuns.get(name)!.attached = false;
  }
}

describe('the TUN device of an agent', () => {
  it('is the first of flannel%d that is free', async () => {
    const host = new Host();
    assert.deepEqual(
      [await host.start(A), await host.start(B), await host.start(C)],
      ['flannel0', 'flannel1', 'flannel2'],
    );
  });

  it('tells which networks others of the host have', async () => {
    const host = new Host();
    for (const network of [A, B]) await host.start(network);
    host.tuns.set('tun0', { alias: 'somebody’s VPN', attached: true });
    host.tuns.set('tun1', { alias: undefined, attached: true });
    const tuns = await host.tunDevices();
    assert.deepEqual(networksBeside(tuns, [A]), [B]);
    assert.deepEqual(networksBeside(tuns, [C]), [A, B]);
    assert.deepEqual(networksBeside(tuns, [A, net('10.2.0.0/17')]), [], 'a part of it was its own');
  });

  it('is the same again after a restart, whoever else runs or is stopped', async () => {
    const host = new Host();
    await host.start(A);
    await host.start(B);
    host.stop('flannel1');
    assert.equal(await host.start(B), 'flannel1');
    host.stop('flannel0');
    host.stop('flannel1');
    assert.equal(await host.start(B), 'flannel1');
    assert.equal(await host.start(C), 'flannel2', 'that of an agent that is stopped is not free');
    assert.equal(await host.start(A), 'flannel0');
  });

  it('is flannel0 always when there is one network, also a changed one', async () => {
    const host = new Host();
    host.tuns.set('flannel0', { alias: undefined, attached: false });
    assert.equal(await host.start(A), 'flannel0', 'of a program that does not mark its device');
    host.stop('flannel0');
    assert.equal(await host.start(B, [A]), 'flannel0', 'subnet.env has the network before');
    host.stop('flannel0');
    assert.equal(await host.start(net('10.0.0.0/8')), 'flannel0', 'a part of it can be nobody else’s');
    host.stop('flannel0');
    host.tuns.get('flannel0')!.alias = 'uplink of floor 3';
    assert.equal(await host.start(C), 'flannel0', 'an alias of somebody who names devices for people');
  });

  it('is named, though it cannot be had, while another agent of this network has it', async () => {
    const host = new Host();
    await host.start(A);
    assert.equal(await takeTun(host, A, [], signal), 'flannel0');
    assert.equal(await takeTun(host, B, [A], signal), 'flannel0', 'an agent with the same subnet.env');
    assert.deepEqual([...host.tuns.keys()], ['flannel0']);
  });

  it('is never one that another network has or had, in whatever order agents start, stop and start', async () => {
    const networks = [A, B, C];
    const step = fc.record({ agent: fc.nat({ max: 2 }), start: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
        const host = new Host();
        const names = new Map<number, string>();
        const running = new Set<number>();
        for (const { agent, start } of steps) {
          if (!start && running.delete(agent)) host.stop(names.get(agent)!);
          if (!start || running.has(agent)) continue;
          running.add(agent);
          const name = await host.start(networks[agent]!);
          assert.equal(names.get(agent) ?? name, name);
          names.set(agent, name);
          assert.equal(new Set(names.values()).size, names.size);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('is told from others by its mark, in order of their numbers', () => {
    const tuns = [
      { name: 'flannel10', alias: tunMark(A) },
      { name: 'flannel2', alias: tunMark(A) },
      { name: 'flannel0', alias: tunMark(B) },
      { name: 'flannel1', alias: 'weft:nonsense' },
      { name: 'flannel3', alias: undefined },
    ];
    assert.ok(!overlaps(A, B));
    assert.deepEqual(ownTuns(tuns, [A]), ['flannel2', 'flannel10']);
    assert.deepEqual(ownTuns(tuns, []), []);
    const names = ['flannel0', 'flannel17', 'flannel.1', 'flannel', 'flannel01', 'flannel0x', 'tun0'];
    assert.deepEqual(names.filter(isTunName), ['flannel0', 'flannel17']);
  });
});
