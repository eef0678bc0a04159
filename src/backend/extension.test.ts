import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FAKE_IDENTITY_HOST, openedBackend } from '../../test/fakes/backends.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import type { HostCommand } from '../config/host-command.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import type { JsonValue, Lease } from '../lease/lease.ts';
import { type Backend, type ExternalInterface, isSkipped, type PeerHook } from './backend.ts';

const EXTERNAL: ExternalInterface = {
  ...{ name: 'eth0', mtuBytes: 1500, onLink: [] },
  ...{ addresses: addresses('192.168.77.1', 'fd77::1'), publicAddresses: addresses('203.0.113.1', 'fd77::1') },
};
const DUAL = { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd10::/48' };
const V4 = { Network: '10.244.0.0/16' };

function open(network: object, backend: object, stdout = ''): Promise<Backend> {
  const host = { ...FAKE_IDENTITY_HOST, runCommand: async () => ({ stdout, stderr: 'a warning' }) };
  return openedBackend(JSON.stringify({ ...network, Backend: { Type: 'extension', ...backend } }), EXTERNAL, { host });
}

function lease(host: number, data: JsonValue | undefined, { v6 = false, type = 'extension' } = {}): Lease {
  return {
    subnets: {
      ipv4: parsePrefix4(`10.244.${host}.0/24`),
      ipv6: v6 ? parsePrefix6(`fd10:0:0:${host}::/64`) : undefined,
    },
    attrs: {
      publicAddresses: { ipv4: parseIpv4(`192.168.77.${host}`), ipv6: v6 ? parseIpv6(`fd77::${host}`) : undefined },
      ...{ backendType: type, backendData: { ipv4: data, ipv6: undefined } },
    },
    expiresAtMs: undefined,
  };
}

function hookOf(backend: Backend, peer: Lease): PeerHook | undefined {
  const part = backend.peer(lease(1, undefined), peer);
  assert(!isSkipped(part), JSON.stringify(part));
  return part.hook;
}

describe('backend extension', () => {
  it('publishes what PreStartupCommand has written to standard output, and the interface’s own address', async () => {
    const ran: HostCommand[] = [];
    const host = {
      ...FAKE_IDENTITY_HOST,
      runCommand: async (command: HostCommand) => {
        ran.push(command);
        return { stdout: 'key=1', stderr: 'a warning' };
      },
    };
    const conf = { ...V4, Backend: { Type: 'extension', PreStartupCommand: ' cat  /etc/key\t$HOME "a b" ' } };
    const { attrs, mtuBytes } = await openedBackend(JSON.stringify(conf), EXTERNAL, { host });
    assert.deepEqual(ran, [{ words: ['cat', '/etc/key', '$HOME', '"a', 'b"'], env: {}, stdin: '' }]);
    assert.deepEqual(attrs, { ...lease(1, 'key=1').attrs });
    assert.equal(mtuBytes, 1500);
  });

  it('runs nothing and publishes no data without commands', async () => {
    const backend = await open(V4, { PreStartupCommand: ' ', SubnetAddCommand: '' }, 'unused');
    assert.equal(backend.attrs.backendData.ipv4, undefined);
    assert.equal(backend.host(lease(1, undefined)).hook, undefined);
    assert.deepEqual(hookOf(backend, lease(2, undefined)), { add: undefined, remove: undefined });
  });

  it('gives the command of the own lease the network, and every variable in every family', async () => {
    const command = { PostStartupCommand: 'up' };
    const own = lease(1, undefined, { v6: true });
    const v4 = (await open(V4, command)).host({ ...own, subnets: { ...own.subnets, ipv6: undefined } }).hook;
    const common = { NETWORK: '10.244.0.0/16', SUBNET: '10.244.1.0/24', PUBLIC_IP: '192.168.77.1' };
    assert.deepEqual(v4, { words: ['up'], env: { ...common, IPV6SUBNET: '', PUBLIC_IPV6: '' }, stdin: '' });
    const dual = (await open(DUAL, command)).host(own).hook;
    assert.deepEqual(dual?.env, { ...common, IPV6SUBNET: 'fd10:0:0:1::/64', PUBLIC_IPV6: 'fd77::1' });
    const v6 = (await open({ ...DUAL, EnableIPv4: false }, command)).host({
      ...own,
      subnets: { ...own.subnets, ipv4: undefined },
    }).hook;
    assert.deepEqual([v6?.env.SUBNET, v6?.env.IPV6SUBNET], ['', 'fd10:0:0:1::/64']);
  });

  it('hands a peer’s data to the commands for it', async () => {
    const backend = await open(DUAL, { SubnetAddCommand: 'add $SUBNET', SubnetRemoveCommand: 'del $SUBNET' });
    const env = {
      ...{ SUBNET: '10.244.2.0/24', PUBLIC_IP: '192.168.77.2' },
      ...{ IPV6SUBNET: 'fd10:0:0:2::/64', PUBLIC_IPV6: 'fd77::2' },
    };
    assert.deepEqual(hookOf(backend, lease(2, 'key=2', { v6: true })), {
      add: { words: ['add', '$SUBNET'], env, stdin: 'key=2' },
      remove: { words: ['del', '$SUBNET'], env, stdin: 'key=2' },
    });
    assert.equal(hookOf(backend, lease(3, null))?.add?.stdin, '');
  });

  it('takes no peer of another backend, and none whose data is no text', async () => {
    const backend = await open(V4, { SubnetAddCommand: 'add' });
    assert.match(JSON.stringify(backend.peer(lease(1, undefined), lease(2, undefined, { type: 'vxlan' }))), /vxlan/);
    assert.deepEqual(backend.peer(lease(1, undefined), lease(2, { VNI: 1 })), {
      skipped: 'its backend data is not a text',
    });
  });
});
