import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { KubeCluster } from '../../../src/lab/servers/kube-server.ts';
import { Guest, MACHINE_ADDRESS } from './guest.ts';

/**
 * Backends on Debian's kernel, which has the modules that the machine's own may lack: hosts, agents and what is looked at are in
 * init.sh, and each test here is one of its lines.
 */

// The kernel package and the emulator that are asked for are those of x86-64.
const skip = process.arch === 'x64' ? false : 'the guest is an x86-64 machine';

/** The only scenarios that are run, with commas; all without it. */
const wanted = process.env.WEFT_GUEST_SCENARIOS?.split(',');

/** They need an API server, which runs on the machine. */
const ON_KUBERNETES = ['ipip-direct', 'udp', 'wireguard-ipv6'];

describe('in a guest with Debian’s kernel', { skip }, () => {
  let guest: Guest;
  let cluster: KubeCluster | undefined;
  before(async () => {
    guest = await Guest.boot(wanted);
    if (!ON_KUBERNETES.some(isWanted)) return;
    const here = { address: MACHINE_ADDRESS, apiServerArgs: ['--bind-address=127.0.0.1'] };
    cluster = await KubeCluster.start({ ...here, controllerManager: false });
    for (const number of [1, 2])
      await cluster.admin.createNode(`node${number}`, {
        podCidrs: [`10.42.${number}.0/24`, `fd10:244:0:${number}::/64`],
      });
    await guest.share('kubeconfig', await readFile(await cluster.flannelKubeconfig(), 'utf8'));
  });
  after(async () => {
    await guest?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
  });

  function isWanted(scenario: string): boolean {
    return wanted === undefined || wanted.includes(scenario);
  }

  function look(what: string, name: string, tests: (guestTest: (title: string) => void) => void): void {
    if (!isWanted(name)) return;
    describe(what, () => {
      tests((title) => {
        it(title, async () => {
          const { ok, reason } = await guest.check(name, title);
          assert.ok(ok, reason);
        });
      });
    });
  }

  /** Begins with agents and containers, and ends with a cleanup; and has these tests in between. */
  function scenario(what: string, name: string, tests: (guestTest: (title: string) => void) => void): void {
    look(what, name, (guestTest) => {
      guestTest('agents are ready');
      guestTest('containers reach each other, with packets that fill the MTU');
      guestTest('rules are in iptables or in nftables, as net-conf.json says');
      tests(guestTest);
      guestTest('weft cleanup leaves nothing behind');
    });
  }

  scenario('wireguard, separate, with iptables, in dual stack', 'wireguard', (guestTest) => {
    guestTest('weft trace shows each hop, and what the peer’s firewall drops');
    guestTest('each device is deleted, and comes back with all it had');
    guestTest('devices of both families are renamed, and get back name and routes');
    guestTest('the device is set down, and comes back up');
    guestTest('handshake and bytes of the peer are in the metrics');
    guestTest('weft peers lists bytes and last handshake of the peer');
    guestTest('a peer is removed, and comes back');
    guestTest('no key is in a log');
    guestTest('a new key is taken while the agent runs, and reaches the peer');
    guestTest('nothing leaves in clear, also without agent and device');
    guestTest('a new key reaches the peer, and nothing leaves in clear');
  });

  scenario('wireguard, auto, with nftables, in dual stack', 'wireguard-auto', (guestTest) => {
    guestTest('one tunnel carries both families, in no clear packet');
    guestTest('each device is deleted, and comes back with all it had');
    guestTest('with Mode ipv6, the tunnel of both families is carried by IPv6');
    guestTest('with Mode ipv4, the tunnel of both families is carried by IPv4');
  });

  scenario('ipsec, with iptables', 'ipsec', (guestTest) => {
    guestTest('packets between the hosts are in the tunnel');
    guestTest('the tunnel and its bytes are in the metrics');
    guestTest('a policy is deleted, and comes back; nothing leaves in clear');
    guestTest('charon is killed, and comes back with all it had');
    guestTest('the key is in no log');
    guestTest('nothing leaves in clear without agent and charon, which ends with it');
  });

  scenario('ipsec with UDPEncap and nftables', 'ipsec-udp', (guestTest) => {
    guestTest('packets between the hosts are in the tunnel');
  });

  scenario('ipip, with iptables', 'ipip', (guestTest) => {
    guestTest('packets between the hosts are in the tunnel');
    guestTest('weft trace shows each hop, and the rule of the peer that drops the packet');
    guestTest('what a stranger sends is not unwrapped');
    guestTest('each device is deleted, and comes back with all it had');
    guestTest('the device is renamed, and gets back name and routes');
  });

  scenario('vxlan, with iptables, in dual stack', 'vxlan', (guestTest) => {
    guestTest('packets between the hosts are in the tunnel');
    guestTest('each device is deleted, and comes back with all it had');
  });

  look('weft lab', 'lab', (guestTest) => {
    guestTest('weft lab with ipip: all passes, and the walk shows the tunnel and its outer header');
    guestTest('weft lab with wireguard: all passes, and the walk shows the devices at both ends');
  });

  scenario('ipip with DirectRouting and nftables, on Kubernetes', 'ipip-direct', (guestTest) => {
    guestTest('packets go straight to a host on the same link');
  });

  scenario('udp on Kubernetes, with iptables on one host and nftables on the other', 'udp', (guestTest) => {
    guestTest('packets between the hosts are in the tunnel');
    guestTest('each device is deleted, and comes back with all it had');
    guestTest(
      'wireguard, as k3s has it, takes the place of udp: its device goes, and no host that has changed sends in clear',
    );
    guestTest('one device, of IPv4, and no clear packet');
  });

  scenario(
    'wireguard, of IPv6 alone, on Kubernetes, with iptables on one host and nftables on the other',
    'wireguard-ipv6',
    (guestTest) => {
      guestTest('one device, of IPv6, and no clear packet');
    },
  );
});
