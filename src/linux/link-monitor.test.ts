import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import { EMPTY_WANTED_STATE, type WantedLink, type WantedState } from '../desired/state.ts';
import { parsePrefix } from '../ip/address.ts';
import { concerns, concernsAddresses, concernsExternal, IpMonitor } from './link-monitor.ts';

function wanted(...links: WantedLink[]): WantedState {
  return { ...EMPTY_WANTED_STATE, links };
}

const UDP: WantedState = {
  ...wanted({ kind: 'external', name: 'eth0' }, { kind: 'tun', name: 'flannel0', mtuBytes: 1472 }),
  networks: [parsePrefix('10.244.0.0/16')!],
};
const NOTHING = wanted();

/** As `ip -N monitor label link address route neigh` prints them (iproute2 6.1). */
const LINES: readonly [string, boolean][] = [
  ['[LINK]7: flannel0: <NO-CARRIER,POINTOPOINT,MULTICAST,NOARP,UP> mtu 1472 qdisc pfifo_fast state DOWN group 0', true],
  ['[LINK]Deleted 7: flannel0: <POINTOPOINT,MULTICAST,NOARP> mtu 1472 qdisc noop state DOWN group 0', true],
  ['[LINK]3: eth0@plug0: <BROADCAST,MULTICAST> mtu 1500 qdisc noqueue state DOWN group 0', true],
  ['[LINK]9: vethafed4ec1@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1472 qdisc noqueue master cni0 state UP', false],
  ['    link/ether 02:00:0a:62:00:11 brd ff:ff:ff:ff:ff:ff', false],
  ['[ADDR]Deleted 7: flannel0    inet 10.244.1.0/32 scope 0 flannel0', true],
  ['[ADDR]Deleted 3: eth0    inet 192.168.77.1/24 scope 0 eth0', true],
  ['[ADDR]4: cni0    inet 10.244.1.1/24 brd 10.244.1.255 scope 0 cni0', false],
  ['       valid_lft forever preferred_lft forever', false],
  ['[ROUTE]Deleted 10.244.0.0/16 dev flannel0 proto 241', true],
  ['[ROUTE]10.244.0.0/16 dev eth1 proto 2 scope 253 src 10.244.0.9', true],
  ['[ROUTE]Deleted 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 241', true],
  ['[ROUTE]blackhole 10.244.1.0/24 proto 241 metric 10000', true],
  ['[ROUTE]fe80::/64 dev flannel0 proto 2 metric 256 pref medium', true],
  ['[ROUTE]default via fe80::1 dev eth0 proto 9 metric 1024 expires 1800sec pref medium', false],
  ['[ROUTE]10.99.0.0/16 dev cni0 proto 24', false],
  ['[NEIGH]192.168.77.2 dev eth0 lladdr 02:00:0a:62:00:12 REACHABLE', false],
  ['[NEIGH]10.244.1.7 dev cni0 lladdr 02:00:0a:62:00:12 STALE', false],
];

describe('what `ip monitor` says', () => {
  for (const [line, expected] of LINES) {
    it(`${expected ? 'matters' : 'does not matter'}: ${line}`, () => {
      assert.equal(concerns(line, UDP), expected);
      if (!line.includes('241')) assert.equal(concerns(line, NOTHING), false);
    });
  }

  it('matters on neighbours of VXLAN links only', () => {
    const line = '[NEIGH]Deleted 10.244.2.0 dev flannel.1 lladdr 72:4f:d0:84:69:9f PERMANENT';
    assert.equal(concerns(line, wanted({ kind: 'bridge', name: 'flannel.1', mtuBytes: 1 })), false);
    const settings = { vni: 1, underlay: 'eth0', local: 0n, port: 1, learning: false, gbp: false } as never;
    assert.equal(
      concerns(line, wanted({ kind: 'vxlan', name: 'flannel.1', mtuBytes: 1, mac: undefined, settings })),
      true,
    );
  });
});

describe('what `ip monitor` says of routes to where ours lead', () => {
  const direct: WantedState = {
    ...wanted({ kind: 'external', name: 'eth0' }),
    networks: [parsePrefix('10.244.0.0/16')!, parsePrefix('fd00:244::/48')!],
  };
  for (const [line, expected] of [
    ['[ROUTE]10.244.2.0/24 via 192.168.77.9 dev eth0 proto 4', true],
    ['[ROUTE]Deleted 10.244.2.0/24 via 192.168.77.9 dev eth0 proto 4', true],
    ['[ROUTE]6 10.244.2.0/24 proto 4 metric 5', true],
    ['[ROUTE]fd00:244:0:2::/64 via fd00:77::9 dev eth0 proto 4 metric 20 pref medium', true],
    ['[ROUTE]fd00:244::/48 dev eth1 proto 4 metric 20 pref medium', true],
    ['[ROUTE]10.244.1.7 dev cali1f3c scope 253', false],
    ['[ROUTE]10.0.0.0/8 via 192.168.77.9 dev eth0 proto 4', false],
    ['[ROUTE]10.99.0.0/16 via 10.244.2.0 dev eth0 proto 4', false],
    ['[ROUTE]fd00:99::/48 dev eth1 proto 4 metric 20 pref medium', false],
  ] as const) {
    it(`${expected ? 'matters' : 'does not matter'}: ${line}`, () => assert.equal(concerns(line, direct), expected));
  }
});

describe('what `ip monitor` says of the way to the other nodes', () => {
  for (const [line, expected] of [
    ['[LINK]3: eth0@plug0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400 qdisc noqueue state UP group 0', true],
    ['[LINK]Deleted 3: eth0@NONE: <BROADCAST,MULTICAST> mtu 1400 qdisc noop state DOWN group 0', true],
    ['[LINK]3: lan0@plug0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group 0', true],
    ['[LINK]Deleted 3: lan0@NONE: <BROADCAST,MULTICAST> mtu 1400 qdisc noop state DOWN group 0', true],
    [
      '[LINK]33: vethafed4ec1@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1472 qdisc noqueue master cni0 state UP',
      false,
    ],
    ['[LINK]9: vethafed4ec1@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1472 qdisc noqueue master cni0 state UP', false],
    ['    link/ether 02:00:0a:62:00:11 brd ff:ff:ff:ff:ff:ff', false],
    ['[ADDR]Deleted 3: eth0    inet 192.168.77.1/24 scope 0 eth0', true],
    ['[ADDR]3: eth0    inet6 fe80::386b:f5ff:fe6e:aeff/64 scope 253 tentative', true],
    ['[ADDR]4: eth1    inet 192.168.78.1/24 scope 0 eth1', true],
    ['[ADDR]9: vethafed4ec1    inet6 fe80::c834:e3ff:fe60:cdc3/64 scope 253 tentative', false],
    ['[ROUTE]default via 192.168.77.254 dev eth0', true],
    ['[ROUTE]Deleted default via 192.168.77.254 dev eth0', true],
    ['[ROUTE]Deleted 10.244.0.0/16 dev flannel0 proto 241', false],
    ['[NEIGH]192.168.77.2 dev eth0 lladdr 02:00:0a:62:00:12 REACHABLE', false],
  ] as const) {
    it(`${expected ? 'matters' : 'does not matter'}: ${line}`, () => {
      assert.equal(concernsExternal(line, { index: 3, name: 'eth0' }), expected);
    });
  }
});

describe('what `ip monitor` says of the addresses of this host', () => {
  for (const [line, expected] of [
    ['[ADDR]Deleted 3: eth0    inet 192.168.77.1/24 scope 0 eth0', true],
    ['[ADDR]7: dummy0    inet 198.51.100.1/32 scope 0 dummy0', true],
    ['[ADDR]9: vethafed4ec1    inet6 fe80::c834:e3ff:fe60:cdc3/64 scope 253 tentative', false],
    ['[LINK]3: eth0@plug0: <BROADCAST,MULTICAST> mtu 1400 qdisc noqueue state DOWN group 0', true],
    ['[LINK]9: vethafed4ec1@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1472 qdisc noqueue master cni0 state UP', false],
    ['    link/ether 02:00:0a:62:00:11 brd ff:ff:ff:ff:ff:ff', false],
    ['[ROUTE]default via 192.168.77.254 dev eth0', false],
    ['[NEIGH]192.168.77.2 dev eth0 lladdr 02:00:0a:62:00:12 REACHABLE', false],
  ] as const) {
    it(`${expected ? 'matters' : 'does not matter'}: ${line}`, () => {
      assert.equal(concernsAddresses(line, new Set(['lo', 'eth0'])), expected);
    });
  }
});

describe('a monitor that cannot run', () => {
  it('is started again and again, and says why once', async () => {
    await using ip = await fakeIp();
    const said: string[] = [];
    const stop = new AbortController();
    const monitor = new IpMonitor({ onLost: (why) => said.push(why) });
    const listening = listen(monitor, stop.signal);
    await eventually('four starts', async () => (await ip.starts()).length >= 4);
    stop.abort();
    await listening;
    const why = 'ip monitor ended with exit code 1: no monitor here [WEFT_COMMAND_FAILED]';
    assert.deepEqual(said, [`Changes on this host may be noticed late: ${why}`]);
  });
});

describe('a monitor', () => {
  for (const [about, objects] of [
    ['network', ['link', 'address', 'route', 'neigh']],
    ['interfaces', ['link', 'address', 'route']],
    ['addresses', ['link', 'address']],
  ] as const) {
    it(`of ${about} is not woken by anything but ${objects.join(', ')}`, async () => {
      await using ip = await fakeIp();
      const stop = new AbortController();
      const listening = listen(new IpMonitor({ about, onLost: () => {} }), stop.signal);
      const [first] = await eventually('a start', async () => {
        const starts = await ip.starts();
        return starts.length > 0 ? starts : undefined;
      });
      stop.abort();
      await listening;
      assert.deepEqual(first?.split(' monitor label ')[1]?.split(' '), objects);
    });
  }
});

async function listen(monitor: IpMonitor, signal: AbortSignal): Promise<void> {
  for await (const _ of monitor.changes(() => true, signal)) assert.equal(_, undefined);
}

/** An `ip` that notes with what arguments it is started, and fails. */
async function fakeIp(): Promise<AsyncDisposable & { readonly starts: () => Promise<readonly string[]> }> {
  const folder = await mkdtemp(join(tmpdir(), 'weft-monitor-'));
  const path = process.env.PATH;
  const starts = join(folder, 'starts');
  const text = `#!/bin/sh\necho "$*" >>${starts}\necho 'no monitor here' >&2\nexit 1\n`;
  await writeFile(join(folder, 'ip'), text, { mode: 0o755 });
  process.env.PATH = `${folder}:${path}`;
  return {
    starts: async () => (await readFile(starts, 'utf8').catch(() => '')).split('\n').slice(0, -1),
    [Symbol.asyncDispose]: async () => {
      process.env.PATH = path;
      await rm(folder, { recursive: true });
    },
  };
}
