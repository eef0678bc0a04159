import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { WeftError } from '../errors.ts';
import { connectionName, type IkeConnection, type IkeDaemon, type IkeSession, type IkeTunnel } from '../ike/ike.ts';
import { parseAddr, parsePrefix } from '../ip/address.ts';
import type { LeaseKey } from '../lease/lease.ts';
import { Secret } from '../secret.ts';
import { IkeKeeper } from './ike-keeper.ts';

const key = (host: number): LeaseKey => `10.244.${host}.0-24` as LeaseKey;
function connection(host: number, remote = `192.168.0.${host}`): IkeConnection {
  const ends = {
    ...{ local: parseAddr('192.168.0.1')!, remote: parseAddr(remote)! },
    ...{ localSubnet: parsePrefix('10.244.1.0/24')!, remoteSubnet: parsePrefix(`10.244.${host}.0/24`)! },
  };
  return { ...ends, name: connectionName(ends) };
}
/** Host 2 of `192.168.0.1-10.244.1.0/24-10.244.2.0/24-192.168.0.2`. */
const hostOf = (name: string): string => name.replace(/.*-10\.244\.(\d+)\..*/, '$1');

/** A daemon that notes what it is told. */
class FakeDaemon implements IkeDaemon, AsyncDisposable {
  readonly said: string[] = [];
  readonly lines: string[] = [];
  readonly tunnels = new Map<string, IkeTunnel>();
  startError: Error | undefined;
  loadError: Error | undefined;
  end: (why: string) => void = () => {};
  readonly keeper = new IkeKeeper({
    daemon: this,
    settings: { presharedKey: new Secret('k'.repeat(96)), espProposal: 'aes128gcm16', udpEncap: false },
    log: { info: () => {}, error: (text) => void this.lines.push(text) },
    ...{ retryMs: 1, lookMs: 2 },
  });

  async find(): Promise<void> {}

  async start(): Promise<IkeSession> {
    if (this.startError !== undefined) throw this.startError;
    this.said.push('start');
    const { promise, resolve } = Promise.withResolvers<string>();
    this.end = resolve;
    return {
      ended: promise,
      loadKey: async (secret) => void this.said.push(`key ${secret.reveal().length}`),
      load: async ({ name }) => {
        if (this.loadError !== undefined) throw this.loadError;
        this.said.push(`load ${hostOf(name)}`);
      },
      unload: async (name) => void this.said.push(`unload ${hostOf(name)}`),
      initiate: async ({ name }) => void this.said.push(`initiate ${hostOf(name)}`),
      tunnels: async () => this.tunnels,
      [Symbol.asyncDispose]: async () => void this.said.push('end'),
    };
  }

  /** All tunnels are up, as of the next look. */
  up(...hosts: readonly number[]): void {
    for (const host of hosts) {
      this.tunnels.set(connection(host).name, { isUp: true, isIdle: false, receivedBytes: 5, sentBytes: 7 });
    }
  }

  async until(fits: () => boolean): Promise<void> {
    for (const end = performance.now() + 60_000; !fits(); ) {
      assert(performance.now() < end, JSON.stringify([this.said, this.lines]));
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.keeper[Symbol.asyncDispose]();
  }
}

describe('the keeper of the IKE daemon', () => {
  it('tells the daemon what is wanted when it starts, and then what changes', async () => {
    await using daemon = new FakeDaemon();
    const { keeper } = daemon;
    assert.match(keeper.failure ?? '', /not started/);
    daemon.up(2, 3, 4);
    keeper.setPeer(key(2), connection(2));
    keeper.setPeer(key(3), connection(3));
    keeper.start();
    keeper.start();
    await daemon.until(() => keeper.failure === undefined);
    assert.deepEqual(daemon.said.splice(0), ['start', 'key 96', 'load 2', 'load 3']);
    keeper.setPeer(key(2), connection(2));
    keeper.setPeer(key(3), undefined);
    keeper.setPeer(key(4), connection(4));
    await daemon.until(() => daemon.said.length === 2);
    assert.deepEqual(daemon.said.splice(0), ['unload 3', 'load 4']);
    // With another address it is another connection.
    keeper.setPeer(key(2), connection(2, '192.168.0.99'));
    await daemon.until(() => daemon.said.length === 2);
    assert.deepEqual(daemon.said, ['unload 2', 'load 2']);
  });

  it('starts a daemon that has ended again, with all that is wanted, and ends it at last', async () => {
    const daemon = new FakeDaemon();
    daemon.up(2);
    daemon.keeper.setPeer(key(2), connection(2));
    daemon.keeper.start();
    await daemon.until(() => daemon.said.length === 3);
    daemon.end('it has ended by SIGKILL');
    await daemon.until(() => daemon.said.length === 7);
    assert.deepEqual(daemon.said.slice(3), ['end', 'start', 'key 96', 'load 2']);
    assert.match(daemon.lines.join(), /charon: it has ended by SIGKILL.*WEFT_CHARON_FAILED/);
    await daemon.until(() => daemon.keeper.failure === undefined);
    await daemon[Symbol.asyncDispose]();
    assert.equal(daemon.said.at(-1), 'end');
    const count = daemon.said.length;
    daemon.keeper.start();
    assert.equal(daemon.said.length, count);
  });

  it('says why there is none, once, and tries again', async () => {
    await using daemon = new FakeDaemon();
    daemon.startError = new WeftError('WEFT_CHARON_FAILED', 'charon already running');
    daemon.keeper.start();
    await daemon.until(() => daemon.keeper.failure?.includes('already running') === true);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(daemon.lines.length, 1);
    daemon.startError = undefined;
    await daemon.until(() => daemon.keeper.failure === undefined);
  });

  it('fails while the daemon refuses connections, and tries them again', async () => {
    await using daemon = new FakeDaemon();
    daemon.loadError = new WeftError('WEFT_CHARON_FAILED', 'load-conn: invalid value for: esp_proposals');
    daemon.keeper.setPeer(key(2), connection(2));
    daemon.keeper.start();
    await daemon.until(() => daemon.keeper.failure?.includes('esp_proposals') === true);
    assert.match(daemon.keeper.tunnel(key(2))?.problem ?? '', /not up: .*esp_proposals/);
    daemon.loadError = undefined;
    await daemon.until(() => daemon.said.includes('load 2'));
    await daemon.until(() => daemon.keeper.failure === undefined);
  });

  it('tries tunnels again that came to nothing, and no others; and knows what it has of each', async () => {
    await using daemon = new FakeDaemon();
    const { keeper } = daemon;
    daemon.up(2);
    for (const host of [2, 3]) keeper.setPeer(key(host), connection(host));
    keeper.start();
    await daemon.until(() => daemon.said.filter((word) => word === 'initiate 3').length > 1);
    assert(!daemon.said.includes('initiate 2'));
    const { problem, isUp, sentBytes } = keeper.tunnel(key(2))!;
    assert.deepEqual([problem, isUp, sentBytes], [undefined, true, 7]);
    assert.match(keeper.tunnel(key(3))?.problem ?? '', /^its IPsec tunnel is not up$/);
    assert.equal(keeper.tunnel(key(9)), undefined);
    assert.deepEqual(
      Array.from(keeper.tunnels(), ([lease, tunnel]) => [lease, tunnel.isUp]),
      [
        [key(2), true],
        [key(3), false],
      ],
    );
  });
});
