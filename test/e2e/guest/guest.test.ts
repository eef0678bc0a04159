import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Guest } from './guest.ts';

/**
 * Backends on Debian's kernel, which has the modules that the machine's own may lack: hosts, agents and what is looked at are in
 * init.sh, and each test here is one of its lines.
 */

// The kernel package and the emulator that are asked for are those of x86-64.
const skip = process.arch === 'x64' ? false : 'the guest is an x86-64 machine';

describe('in a guest with Debian’s kernel', { skip }, () => {
  let guest: Guest;
  before(async () => {
    guest = await Guest.boot();
  });
  after(() => guest?.[Symbol.asyncDispose]());

  /** What a scenario begins with; and the tests of it that follow. */
  function begin(scenario: string): (title: string) => void {
    const guestTest = (title: string): void => {
      it(title, async () => {
        const { ok, reason } = await guest.check(scenario, title);
        assert.ok(ok, reason);
      });
    };
    guestTest('agents are ready');
    guestTest('containers reach each other, with packets that fill the MTU');
    return guestTest;
  }

  describe('wireguard, separate, with iptables, in dual stack', () => {
    const guestTest = begin('wireguard');
    guestTest('the device is deleted, and comes back with all it had');
    guestTest('the device is set down, and comes back up');
    guestTest('handshake and bytes of the peer are in the metrics');
    guestTest('a peer is removed, and comes back');
    guestTest('no key is in a log');
    guestTest('a new key is taken while the agent runs, and reaches the peer');
    guestTest('nothing leaves in clear, also without agent and device');
    guestTest('a new key reaches the peer, and nothing leaves in clear');
    guestTest('weft cleanup leaves nothing behind');
  });

  describe('wireguard, auto, with nftables, in dual stack', () => {
    const guestTest = begin('wireguard-auto');
    guestTest('one tunnel carries both families, in no clear packet');
    guestTest('the device is deleted, and comes back with all it had');
    guestTest('with Mode ipv6, the tunnel of both families is carried by IPv6');
    guestTest('with Mode ipv4, the tunnel of both families is carried by IPv4');
    guestTest('weft cleanup leaves nothing behind');
  });

  describe('ipsec, with iptables', () => {
    const guestTest = begin('ipsec');
    guestTest('packets between the hosts are in the tunnel');
    guestTest('the tunnel and its bytes are in the metrics');
    guestTest('a policy is deleted, and comes back; nothing leaves in clear');
    guestTest('charon is killed, and comes back with all it had');
    guestTest('the key is in no log');
    guestTest('nothing leaves in clear without agent and charon, which ends with it');
    guestTest('weft cleanup leaves nothing behind');
  });

  describe('ipsec with UDPEncap and nftables', () => {
    const guestTest = begin('ipsec-udp');
    guestTest('packets between the hosts are in the tunnel');
    guestTest('weft cleanup leaves nothing behind');
  });

  describe('ipip, with iptables', () => {
    const guestTest = begin('ipip');
    guestTest('packets between the hosts are in the tunnel');
    guestTest('what a stranger sends is not unwrapped');
    guestTest('the device is deleted, and comes back with all it had');
    guestTest('weft cleanup leaves nothing behind');
  });

  describe('ipip with DirectRouting and nftables', () => {
    const guestTest = begin('ipip-direct');
    guestTest('packets go straight to a host on the same link');
    guestTest('weft cleanup leaves nothing behind');
  });

  describe('vxlan, with iptables, in dual stack', () => {
    const guestTest = begin('vxlan');
    guestTest('packets between the hosts are in the tunnel');
    guestTest('the device is deleted, and comes back with all it had');
    guestTest('weft cleanup leaves nothing behind');
  });

  describe('udp, with iptables', () => {
    const guestTest = begin('udp');
    guestTest('packets between the hosts are in the tunnel');
    guestTest('the device is deleted, and comes back with all it had');
    guestTest('weft cleanup leaves nothing behind');
  });
});
