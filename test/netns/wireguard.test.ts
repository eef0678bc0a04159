import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { keyPairOf, newPrivateKey } from '../../src/backend/wireguard-key.ts';
import type { OpResult } from '../../src/desired/kernel.ts';
import type { Op } from '../../src/desired/op.ts';
import type { WireguardPeer } from '../../src/desired/state.ts';
import { parseAddr, parsePrefix } from '../../src/ip/address.ts';
import { Topology } from '../../src/lab/topology.ts';
import { run, start } from '../../src/linux/run.ts';
import { applyWireguard, readWireguard } from '../../src/linux/wireguard.ts';
import { Secret } from '../../src/secret.ts';
import { Flanneld, HEALTHZ_PORT, localFlags } from './flanneld.ts';
import { type Namespace, withNamespace } from './traffic-namespace.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;
const keys = (byte: number) =>
  keyPairOf({ path: 'test', text: newPrivateKey((count) => new Uint8Array(count).fill(byte)) });
const failures = (results: readonly OpResult[]) => results.flatMap((result) => (result.ok ? [] : [result.error]));

/** A device of the user-space WireGuard, which `wg` speaks to as to the kernel's: that one is not in every kernel. */
async function openDevice(stack: AsyncDisposableStack, namespace: Namespace, link: string): Promise<void> {
  const child = stack.use(
    await start(['wireguard-go', '--foreground', link], { netns: namespace.name, stdout: 'ignore' }),
  );
  await eventually('the device is there', async () => {
    const { exitCode } = await run(['wg', 'show', link], { netns: namespace.name, okExitCodes: 'any' });
    return exitCode === 0 ? child : undefined;
  });
}

describe('wg', () => {
  it('sets and reads key, port and peers of a device, and takes peers away', async () => {
    await using stack = new AsyncDisposableStack();
    const namespace = stack.use(await withNamespace());
    // It has one socket for each name, whatever the namespace.
    const link = `wg${process.pid}`;
    await openDevice(stack, namespace, link);
    const options = { netns: namespace.name, signal };
    const read = async () => (await readWireguard([link, 'nosuch0'], options))[0];
    const settings = { ...keys(1), listenPort: 51820 };
    const first: WireguardPeer = {
      link,
      publicKey: keys(2).publicKey,
      endpoint: { addr: parseAddr('192.168.77.2')!, port: 51820 },
      allowedIps: [parsePrefix('10.244.2.0/24')!, parsePrefix('fd10:0:0:2::/64')!],
      keepaliveSeconds: 25,
      presharedKey: new Secret(keys(9).publicKey),
    };
    const second: WireguardPeer = {
      ...{ link, publicKey: keys(3).publicKey, endpoint: { addr: parseAddr('fd77::3')!, port: 51821 } },
      ...{ allowedIps: [parsePrefix('10.244.3.0/24')!], keepaliveSeconds: 0, presharedKey: undefined },
    };
    const silent = { lastHandshakeAtMs: undefined, receivedBytes: 0, sentBytes: 0 };
    const apply = async (...ops: Op[]) => assert.deepEqual(failures(await applyWireguard(ops, options)), []);

    await apply(
      { type: 'wireguard-set', link, settings },
      { type: 'wireguard-peer-set', peer: first },
      { type: 'wireguard-peer-set', peer: second },
    );
    const device = await read();
    assert.deepEqual([device?.publicKey, device?.listenPort], [settings.publicKey, 51820]);
    const text = (peers: readonly object[]) =>
      JSON.stringify(peers, (_, value) => (typeof value === 'bigint' ? String(value) : value));
    assert.deepEqual(
      text(sorted(device?.peers ?? [])),
      text(sorted([first, second].map((peer) => ({ ...peer, ...silent })))),
    );
    assert(device?.peers.some(({ presharedKey }) => presharedKey?.equals(first.presharedKey!)));

    // What is allowed to one goes to the other; a pre-shared key can be taken away.
    await apply({ type: 'wireguard-peer-set', peer: { ...second, allowedIps: [parsePrefix('10.244.2.0/24')!] } });
    await apply({
      type: 'wireguard-peer-set',
      peer: { ...first, allowedIps: [parsePrefix('fd10:0:0:2::/64')!], presharedKey: undefined },
    });
    const moved = (await read())?.peers.find(({ publicKey }) => publicKey === first.publicKey);
    assert.deepEqual([moved?.allowedIps, moved?.presharedKey], [[parsePrefix('fd10:0:0:2::/64')], undefined]);

    await apply(
      { type: 'wireguard-peer-delete', link, publicKey: first.publicKey },
      { type: 'wireguard-peer-delete', link, publicKey: keys(7).publicKey },
    );
    assert.deepEqual(
      (await read())?.peers.map(({ publicKey }) => publicKey),
      [second.publicKey],
    );
  });

  it('says of a device that is not there that it is not, and no key', async () => {
    await using namespace = await withNamespace();
    const options = { netns: namespace.name, signal };
    const link = 'nosuch0';
    assert.deepEqual(await readWireguard([link], options), []);
    const gone = await applyWireguard([{ type: 'wireguard-peer-delete', link, publicKey: keys(1).publicKey }], options);
    assert.deepEqual(failures(gone), []);
    const [error = ''] = failures(
      await applyWireguard([{ type: 'wireguard-set', link, settings: { ...keys(1), listenPort: 1 } }], options),
    );
    assert.match(error, /No such device|not supported/);
    assert(!error.includes(keys(1).privateKey.reveal()));
  });
});

describe('backends whose module a kernel may not have', () => {
  for (const [backend, device] of [
    ['wireguard', 'flannel-wg'],
    ['ipip', 'flannel.ipip'],
  ] as const) {
    it(`${backend}: is ready, or says which module is missing and what has it`, async () => {
      await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
      const host = topology.hosts[0]!;
      const trial = await topology.exec(host, ['ip', 'link', 'add', 'trial', 'type', backend], { okExitCodes: 'any' });
      const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: backend } });
      const flags = localFlags(host, netConf, `--healthz-port=${HEALTHZ_PORT}`);
      const keyFile = `${host.stateDirectory}/keys/wgkey`;
      await using agent = await Flanneld.start(topology, host, { flags, env: { WIREGUARD_KEY_FILE: keyFile } });
      const missing = new RegExp(
        `${device}.*its module ${backend} is missing. Try modprobe ${backend}; Debian.*linux-image`,
      );
      if (trial.exitCode === 0) await agent.answers('/readyz', 200, /.*/);
      else await agent.answers('/readyz', 503, missing);
    });
  }
});

function sorted<T extends { readonly publicKey: string }>(peers: readonly T[]): T[] {
  return peers.map(inOrder).sort((a, b) => (a.publicKey < b.publicKey ? -1 : 1));
}

function inOrder<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) as T;
}
