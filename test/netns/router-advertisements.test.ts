import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { LabHost, Place, Topology } from '../../src/lab/topology.ts';
import { run } from '../../src/linux/run.ts';
import { openRealHost } from './kernel-harness.ts';
import { Overlay } from './overlay.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;
const PREFIX = 'fd66:bad::';
const VXLAN_PORT = 8472;

/** A router at fe80::66 that offers itself as default route and a prefix to take addresses from (RFC 4861, 4.2 and 4.6.2). */
function routerAdvertisement(): Buffer {
  const source = Buffer.from('fe800000000000000000000000000066', 'hex');
  const allNodes = Buffer.from('ff020000000000000000000000000001', 'hex');
  const prefix = Buffer.from('fd660bad000000000000000000000000', 'hex');
  // Hop limit 64, router lifetime 1800 s; then a /64, on link and for addresses, for an hour.
  const head = Buffer.from('8600000040000708 0000000000000000'.replaceAll(' ', ''), 'hex');
  const option = Buffer.concat([Buffer.from('030440c000000e1000000e1000000000', 'hex'), prefix]);
  const message = Buffer.concat([head, option]);
  const pseudo = Buffer.concat([source, allNodes, Buffer.from([0, 0, 0, message.length, 0, 0, 0, 58])]);
  const summed = Buffer.concat([pseudo, message]);
  let sum = 0;
  for (let i = 0; i < summed.length; i += 2) sum += summed.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  message.writeUInt16BE(~sum & 0xffff, 2);
  return Buffer.concat([Buffer.from([0x60, 0, 0, 0, 0, message.length, 58, 255]), source, allNodes, message]);
}

/** As the peer's kernel would send it: VNI 1, to the MAC addresses of all nodes. */
function overVxlan(packet: Buffer): Buffer {
  const vxlan = Buffer.from('0800000000000100', 'hex');
  const ethernet = Buffer.from('333300000001' + '020000000066' + '86dd', 'hex');
  return Buffer.concat([vxlan, ethernet, packet]);
}

const SENDER = `
  const [hex, from, to, port] = process.argv.slice(1);
  const socket = require('node:dgram').createSocket('udp4');
  socket.bind(0, from, () => socket.send(Buffer.from(hex, 'hex'), Number(port), to, () => socket.close()));`;

async function send(topology: Topology, from: LabHost, to: LabHost, port: number, payload: Buffer): Promise<void> {
  const address = ({ index }: LabHost): string => `192.168.77.${index + 1}`;
  const argv = [process.execPath, '-e', SENDER, payload.toString('hex'), address(from), address(to), String(port)];
  await topology.exec(from, argv);
}

/** IPv6 addresses and routes of a host or container, once the kernel is done with its own. */
async function ipv6State(topology: Topology, place: Place): Promise<string> {
  const show = async (...argv: string[]): Promise<string> => (await topology.exec(place, ['ip', ...argv])).stdout;
  await eventually(
    'no address is tentative',
    async () => (await show('-6', 'addr', 'show', 'tentative')) === '' || undefined,
  );
  const [addresses, routes] = [await show('-6', '-o', 'addr'), await show('-6', 'route', 'show', 'table', 'all')];
  return `${addresses}${routes}`.replaceAll(/(valid_lft|preferred_lft|expires) \S+/g, '');
}

/** How many router advertisements the kernel has seen on a device, believed or not. */
async function advertisements(topology: Topology, place: Place, device: string): Promise<number> {
  const { stdout } = await topology.exec(place, ['cat', `/proc/net/dev_snmp6/${device}`]);
  return Number(/^Icmp6InRouterAdvertisements\s+(\d+)/m.exec(stdout)?.[1]);
}

const acceptRa = (device: string): string => `/proc/sys/net/ipv6/conf/${device}/accept_ra`;

async function read(topology: Topology, host: LabHost, path: string): Promise<string> {
  return (await topology.exec(host, ['cat', path])).stdout.trim();
}

describe('a router advertisement from a peer', () => {
  for (const mode of ['off', 'auto']) {
    it(`udp, --fast-path=${mode}: is refused before the kernel sees it`, async () => {
      await using overlay = await Overlay.create(
        { hosts: 2, containersPerHost: 1, agentFlags: ['--fast-path', mode] },
        signal,
      );
      const { topology } = overlay;
      const [peer, host] = topology.hosts as [LabHost, LabHost];
      const pod = host.containers[0]!;
      assert.equal(await read(topology, host, acceptRa('flannel0')), '0');
      const refused = async (): Promise<number> => {
        const { stdout } = await topology.exec(host, ['socat', '-t', '5', '-', 'TCP4:127.0.0.1:8081'], {
          stdin: 'GET /metrics HTTP/1.0\r\n\r\n',
        });
        const counted = stdout.matchAll(
          /^weft_dropped_packets_total\{.*direction="rx",reason="ipv6-multicast"\} (\d+)/gm,
        );
        return [...counted].reduce((sum, [, count]) => sum + Number(count), 0);
      };
      const before = [await ipv6State(topology, host), await ipv6State(topology, pod)];
      const count = await refused();
      await send(topology, peer, host, 8285, routerAdvertisement());
      await eventually('it is counted as refused', async () => (await refused()) > count || undefined);
      assert.equal(await advertisements(topology, host, 'flannel0'), 0);
      assert.deepEqual([await ipv6State(topology, host), await ipv6State(topology, pod)], before);
    });
  }

  it('vxlan: arrives, and changes nothing on the host nor in its pods; it would if the agent did not keep accept_ra at 0', async () => {
    await using overlay = await Overlay.create(
      {
        hosts: 2,
        containersPerHost: 1,
        netConf: JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } }),
      },
      signal,
    );
    const { topology } = overlay;
    const [peer, host] = topology.hosts as [LabHost, LabHost];
    const pod = host.containers[0]!;
    const inject = async (): Promise<void> => {
      const count = await advertisements(topology, host, 'flannel.1');
      await send(topology, peer, host, VXLAN_PORT, overVxlan(routerAdvertisement()));
      await eventually(
        'it arrives',
        async () => (await advertisements(topology, host, 'flannel.1')) > count || undefined,
      );
    };
    const before = [await ipv6State(topology, host), await ipv6State(topology, pod)];
    await inject();
    assert.deepEqual([await ipv6State(topology, host), await ipv6State(topology, pod)], before);
    assert.equal(await advertisements(topology, pod, 'eth0'), 0);

    const set = (value: string): Promise<unknown> =>
      topology.exec(host, ['sh', '-c', `echo ${value} > ${acceptRa('flannel.1')}`]);
    await set('1');
    await topology.exec(host, ['ip', 'link', 'set', 'flannel.1', 'mtu', '1400']);
    await eventually('the agent has put it back', async () =>
      (await read(topology, host, acceptRa('flannel.1'))) === '0' ? true : undefined,
    );
    await topology.exec(host, ['ip', 'link', 'delete', 'flannel.1']);
    await eventually('a new device has it too', async () => {
      const { stdout } = await topology.exec(host, ['cat', acceptRa('flannel.1')], { okExitCodes: 'any' });
      return stdout.trim() === '0' || undefined;
    });

    const { child } = overlay.agents[host.index]!;
    child.kill('SIGTERM');
    await child.exited;
    assert.equal(await read(topology, host, acceptRa('flannel.1')), '0');
    await set('1');
    await inject();
    await eventually('a host without the setting believes it', async () => {
      const { stdout } = await topology.exec(host, ['ip', '-6', 'route', 'show', 'dev', 'flannel.1']);
      return (/^default via fe80::66 proto ra/m.test(stdout) && stdout.includes(PREFIX)) || undefined;
    });
    assert.equal(await ipv6State(topology, pod), before[1]);
  });
});

describe('a container with a read-only /proc/sys', () => {
  it('has the device all the same, and the problem says what to run on the host', async () => {
    await using host = await openRealHost();
    const source = `
      import { hostState } from './src/backend/shared.ts';
      import { iproute2Kernel } from './src/linux/iproute2.ts';
      import { Reconciler } from './src/desired/reconciler.ts';
      import { describeProblem } from './src/desired/problem.ts';
      import { parseIpv4 } from './src/ip/ipv4.ts';
      const local = parseIpv4('192.168.77.1');
      const settings = { vni: 1, underlay: 'eth0', local, port: 8472, learning: false, gbp: false };
      const links = [
        { kind: 'external', name: 'eth0' },
        { kind: 'vxlan', name: 'flannel.1', mtuBytes: 1450, mac: undefined, settings },
      ];
      await using reconciler = new Reconciler({ kernel: iproute2Kernel({ onLost: assert.fail }) });
      reconciler.set(hostState({ links }, { ipv4: undefined, ipv6: undefined }));
      await reconciler.settled(AbortSignal.timeout(20_000));
      // The look at what was made.
      for (let i = 0; i < 100 && reconciler.stats().problems.length === 0; i++) await new Promise((r) => setTimeout(r, 100));
      const { problems, failures } = reconciler.stats();
      console.log(JSON.stringify({ problems: problems.map(describeProblem), failures, failure: reconciler.failure ?? null }));
      process.exit(0);`;
    const script = `
      mount --bind /proc/sys /proc/sys
      mount -o remount,bind,ro /proc/sys
      exec "$0" --input-type=module -e "$1"`;
    const argv = ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', script, process.execPath, source];
    const cwd = new URL('../..', import.meta.url).pathname;
    const { stdout } = await run(argv, { netns: host.netns, cwd });
    assert.deepEqual(JSON.parse(stdout), {
      problems: [
        'net/ipv6/conf/flannel.1/accept_ra is 1 and cannot be set to 0 from here (/proc/sys is read-only): anyone who can send to flannel.1 can give this host IPv6 addresses and routes with router advertisements, unless it forwards IPv6; set it on the host: echo 0 > /proc/sys/net/ipv6/conf/flannel.1/accept_ra',
      ],
      failures: 0,
      failure: null,
    });
    assert.match(await host.ip('link', 'show', 'dev', 'flannel.1'), /UP/);
  });
});
