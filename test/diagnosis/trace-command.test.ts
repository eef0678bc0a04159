import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { weft } from '../netns/lab-command.ts';
import { addressOf, ping } from '../netns/overlay.ts';
import { eventuallyHolds, LineFeed } from '../netns/waiting.ts';
import { DUAL_STACK, drop, type Fault, stops, TraceBed, underlay6 } from './trace-bed.ts';

const signal = AbortSignal.timeout(600_000);

describe('weft trace with the udp backend', () => {
  let bed: TraceBed;
  before(async () => {
    bed = await TraceBed.create({ ...DUAL_STACK, Backend: { Type: 'udp' } });
  });
  after(async () => {
    await bed?.[Symbol.asyncDispose]();
  });

  it('shows each hop of a packet that is answered, on both hosts', async () => {
    const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to);
    assert.equal(exitCode, 0, JSON.stringify(report, undefined, 1));
    assert.equal(report.verdict.outcome, 'answered');
    assert.deepEqual(report.far, { frames: true, agent: true });
    const request = stops(report, 'request').filter((stop) => !stop.includes('veth'));
    for (const wanted of [
      'this host cni0 in',
      'this host flannel0 out',
      'this host eth0 out',
      `${bed.farAddress} eth0 in`,
      `${bed.farAddress} flannel0 in`,
      `${bed.farAddress} cni0 out`,
    ])
      assert.ok(request.includes(wanted), `${wanted} of ${request.join(', ')}`);
    const wire = report.hops.find(({ host, inner, leg }) => leg === 'request' && host === 'this host' && inner)!;
    assert.match(wire.packet.text, /:8285 > 192\.168\.77\.2:8285 udp/);
    assert.match(wire.inner!.text, new RegExp(`${addressOf(bed.from)} > ${bed.to} icmp echo ttl 62`));
    assert.ok(stops(report, 'answer').includes('this host flannel0 in'));
  });

  it('fits 80 columns, and takes a namespace or the host as its start', async () => {
    for (const from of [bed.from.namespace, 'host']) {
      const { stdout } = await bed.overlay.topology.exec(bed.host(0), bed.command(from, bed.to), { timeoutMs: 60_000 });
      assert.ok(
        stdout.split('\n').every((line) => [...line].length <= 80),
        stdout,
      );
      assert.match(stdout, /^✔ answered at this host/m);
    }
  });

  it('names the rule of nftables in the FORWARD hook, and the one that the host’s own packet meets', async () => {
    const text = `ip daddr ${bed.to}`;
    const rule = { table: 'inet t', chain: 'c', text: `${text} drop`, listedBy: 'nft -a list chain inet t c' };
    const forwarded = await bed.names({ at: bed.host(1), ...drop('forward', text) }, [addressOf(bed.from), bed.to], {
      ...{ outcome: 'lost', host: bed.farAddress, hop: 'host flannel0', reason: 'netfilter' },
    });
    assert.deepEqual(forwarded.rule, rule);
    // The kernel tells the sender of an echo request, and drops the first packet of a connection without a word.
    for (const [words, hop] of [
      [[], 'host socket'],
      [['tcp', '7777'], 'host'],
    ] as const) {
      const sent = await bed.names({ at: bed.host(0), ...drop('output', text) }, ['host', bed.to, ...words], {
        ...{ outcome: 'lost', host: 'this host', hop, reason: 'netfilter' },
      });
      assert.deepEqual(sent.rule, rule);
    }
    const { stdout } = await bed.sh(bed.host(1), 'nft list tables');
    assert.doesNotMatch(stdout, /weft_trace/);
  });

  it('names the rule of iptables by which the far host drops the tunnel', async () => {
    const rule = 'INPUT -p udp --dport 8285 -j DROP';
    const fault = { at: bed.host(1), make: `iptables-nft -I ${rule}`, mend: `iptables-nft -D ${rule}` };
    const verdict = await bed.names(fault, [addressOf(bed.from), bed.to], {
      ...{ outcome: 'lost', host: bed.farAddress, hop: 'host eth0', reason: 'netfilter' },
    });
    assert.deepEqual(verdict.rule, {
      ...{ table: 'ip filter', chain: 'INPUT', text: 'udp dport 8285 counter drop' },
      listedBy: 'iptables-nft -t filter -S INPUT',
    });
  });

  it('names the rule of a bridge and of a device, and of iptables-legacy the one that counts copies', async () => {
    const [from, to] = [addressOf(bed.from), bed.to];
    const far = { host: bed.farAddress, ...{ outcome: 'lost', reason: 'netfilter' } };
    const bridged = drop('prerouting', `ip daddr ${to}`, 'bridge');
    const onBridge = await bed.names({ at: bed.host(0), ...bridged }, [from, to], {
      ...{ ...far, host: 'this host', hop: 'host vethc1' },
    });
    assert.deepEqual(onBridge.rule, {
      ...{ table: 'bridge t', chain: 'c', text: `ip daddr ${to} drop`, listedBy: 'nft -a list chain bridge t c' },
    });
    const coming = drop('ingress device eth0', 'udp dport 8285', 'netdev');
    const onDevice = await bed.names({ at: bed.host(1), ...coming }, [from, to], { ...far, hop: 'host eth0' });
    assert.deepEqual(onDevice.rule, {
      ...{ table: 'netdev t', chain: 'c', text: 'udp dport 8285 drop', listedBy: 'nft -a list chain netdev t c' },
    });
    const legacy = (program: string, chain: string, match: string): Fault => ({
      ...{ at: bed.host(1), make: `${program} -I ${chain} ${match}`, mend: `${program} -D ${chain} ${match}` },
    });
    const text = '-p udp -m udp --dport 8285 -j DROP';
    const incoming = await bed.names(legacy('iptables-legacy', 'INPUT', text), [from, to], {
      ...far,
      hop: 'host eth0',
    });
    assert.deepEqual(incoming.rule, {
      ...{ table: 'iptables-legacy filter', chain: 'INPUT', text, listedBy: 'iptables-legacy -t filter -S INPUT' },
    });
    const [from6, to6] = [bed.from6!, bed.to6!];
    const rejecting = legacy('ip6tables-legacy', 'FORWARD', `-d ${to6}/128 -j REJECT`);
    const rejected = await bed.names(rejecting, [from6, to6], {
      ...{ ...far, host: underlay6(bed.host(1)), hop: 'host flannel0' },
    });
    assert.deepEqual(rejected.rule, {
      ...{ table: 'ip6tables-legacy filter', chain: 'FORWARD' },
      text: `-d ${to6}/128 -j REJECT --reject-with icmp6-port-unreachable`,
      listedBy: 'ip6tables-legacy -t filter -S FORWARD',
    });
  });

  it('names a missing route, in the container and on the host', async () => {
    const gateway = addressOf(bed.from).replace(/\d+$/, '1');
    const inContainer = { at: bed.from, make: 'ip route del default', mend: `ip route add default via ${gateway}` };
    await bed.names(inContainer, [bed.from.namespace, bed.to], {
      ...{ outcome: 'lost', host: 'this host', hop: `${bed.from.namespace} socket`, reason: 'no-route' },
    });
    const route = `unreachable ${bed.to}/32`;
    const onHost = { at: bed.host(0), make: `ip route add ${route}`, mend: `ip route del ${route}` };
    await bed.names(onHost, [addressOf(bed.from), bed.to], {
      ...{ outcome: 'lost', host: 'this host', hop: 'host cni0', reason: 'no-route' },
    });
  });

  it('names the agent that refuses the source of a packet', async () => {
    const gateway = addressOf(bed.from).replace(/\d+$/, '1');
    const fault = {
      at: bed.from,
      make: `ip addr add 10.244.240.9/32 dev eth0; ip route replace default via ${gateway} src 10.244.240.9`,
      mend: `ip route replace default via ${gateway}; ip addr del 10.244.240.9/32 dev eth0`,
    };
    const unfiltered = 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done';
    await bed.sh(bed.host(0), unfiltered);
    // Else this host would masquerade it.
    const hook = 'type filter hook prerouting priority -300';
    await bed.sh(
      bed.host(0),
      `nft add table inet t; nft 'add chain inet t c { ${hook}; }'; nft add rule inet t c ip saddr 10.244.240.9 notrack`,
    );
    await bed.names(fault, [bed.from.namespace, bed.to], {
      ...{ outcome: 'lost', host: bed.farAddress, hop: 'agent', reason: 'agent:spoofed-source' },
    });
    await bed.sh(bed.host(0), 'nft delete table inet t');
  });

  it('names the device that a packet is too long for', async () => {
    const fault = { at: bed.host(1), make: 'ip link set cni0 mtu 1300', mend: 'ip link set cni0 mtu 1472' };
    await bed.names(fault, [addressOf(bed.from), bed.to, '--size', '1400'], {
      ...{ outcome: 'lost', host: bed.farAddress, hop: 'host flannel0', reason: 'too-big' },
    });
  });

  it('tells a port without a listener from one with', async () => {
    for (const kind of ['tcp', 'udp']) {
      const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to, kind, '7777');
      assert.equal(exitCode, 1);
      const { outcome, host, reason } = report.verdict;
      assert.deepEqual([outcome, host, reason], ['refused', bed.farAddress, 'no-listener'], JSON.stringify(report));
    }
    await using _tcp = await bed.overlay.topology.start(bed.far, ['socat', 'TCP4-LISTEN:7777,fork', 'EXEC:cat'], {
      signal,
    });
    await using _udp = await bed.overlay.topology.start(bed.far, ['socat', '-u', 'UDP4-RECV:7777', '/dev/null'], {
      signal,
    });
    for (const [kind, outcome] of [
      ['tcp', 'answered'],
      ['udp', 'delivered'],
    ] as const) {
      await eventuallyHolds(async () => {
        const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to, kind, '7777');
        assert.deepEqual([report.verdict.outcome, exitCode], [outcome, 0], JSON.stringify(report));
      });
    }
  });

  it('names the socket whose program does not read, until it reads again', async () => {
    const { topology } = bed.overlay;
    await using reader = await topology.start(bed.far, ['socat', '-u', 'UDP4-RECV:7778,rcvbuf=4096', '/dev/null'], {
      signal,
    });
    const words = [addressOf(bed.from), bed.to, 'udp', '7778'];
    await eventuallyHolds(async () =>
      assert.equal((await bed.trace(...words)).report.verdict.outcome, 'delivered', reader.tail()),
    );
    // More than the socket has room for.
    const send = `for i in $(seq 20); do head -c 1000 /dev/zero | socat -u STDIN UDP4-SENDTO:${bed.to}:7778; done`;
    const stopped = {
      at: bed.from,
      make: `kill -STOP ${reader.pid}; ${send}`,
      mend: `kill -CONT ${reader.pid}`,
    };
    await bed.names(stopped, words, {
      ...{ outcome: 'lost', host: bed.farAddress, hop: `${bed.far.namespace} eth0`, reason: 'socket-buffer' },
    });
    await eventuallyHolds(async () =>
      assert.equal((await bed.trace(...words)).report.verdict.outcome, 'delivered', reader.tail()),
    );
  });

  it('traces IPv6 likewise, from a container and from the host', async () => {
    const [from6, to6, far] = [bed.from6!, bed.to6!, underlay6(bed.host(1))];
    assert.deepEqual((await bed.trace('host', to6)).report.far, { frames: true, agent: true });
    const { report, exitCode } = await bed.trace(from6, to6);
    assert.equal(exitCode, 0, JSON.stringify(report, undefined, 1));
    assert.equal(report.verdict.outcome, 'answered');
    const request = stops(report, 'request').filter((stop) => !stop.includes('veth'));
    for (const wanted of ['this host cni0 in', 'this host flannel0 out', 'this host eth0 out'])
      assert.ok(request.includes(wanted), `${wanted} of ${request.join(', ')}`);
    for (const wanted of ['eth0 in', 'flannel0 in', 'cni0 out'])
      assert.ok(request.includes(`${far} ${wanted}`), `${wanted} of ${request.join(', ')}`);
    const wire = report.hops.find(({ host, inner, leg }) => leg === 'request' && host === 'this host' && inner)!;
    assert.match(wire.packet.text, /:8285 > .*:8285 udp/);
    assert.ok(wire.inner!.text.startsWith(`${from6} > ${to6} icmp echo ttl 62`), wire.inner!.text);
    for (const words of [
      ['tcp', '7777'],
      ['udp', '7777'],
    ]) {
      const refused = await bed.trace('host', to6, ...words);
      const { outcome, host, reason } = refused.report.verdict;
      assert.deepEqual([outcome, host, reason], ['refused', far, 'no-listener'], JSON.stringify(refused.report));
    }
    const rule = { at: bed.host(1), ...drop('forward', `ip6 daddr ${to6}`) };
    const dropped = await bed.names(rule, [from6, to6], {
      ...{ outcome: 'lost', host: far, hop: 'host flannel0', reason: 'netfilter' },
    });
    assert.equal(dropped.rule?.text, `ip6 daddr ${to6} drop`);
    const route = `unreachable ${to6}/128`;
    const missing = { at: bed.host(0), make: `ip route add ${route}`, mend: `ip route del ${route}` };
    await bed.names(missing, [from6, to6], {
      ...{ outcome: 'lost', host: 'this host', hop: 'host cni0', reason: 'no-route' },
    });
    // The kernel names the device that it was to leave by.
    const narrow = { at: bed.host(1), make: 'ip link set cni0 mtu 1300', mend: 'ip link set cni0 mtu 1472' };
    await bed.names(narrow, [from6, to6, '--size', '1400'], {
      ...{ outcome: 'lost', host: far, hop: 'host cni0', reason: 'too-big' },
    });
  });

  it('says which half it saw, and refuses wrong usage', async () => {
    const argv = [...weft, 'trace', 'host', bed.to, '--subnet-file', `${bed.host(0).stateDirectory}/subnet.env`];
    const { stdout } = await bed.overlay.topology.exec(bed.host(0), argv, { timeoutMs: 60_000 });
    assert.match(stdout, /Note: the agent of 192\.168\.77\.2 was not asked/);
    for (const words of [
      ['host'],
      ['host', bed.to, 'sctp', '1'],
      ['nowhere', bed.to],
      ['host', '192.0.2.9'],
      ['--drops', 'host'],
    ]) {
      const { exitCode, stderr } = await bed.overlay.topology.exec(bed.host(0), bed.command(...words), {
        okExitCodes: 'any',
      });
      assert.equal(exitCode, 2, stderr);
    }
  });

  it('--drops shows what is dropped, and --live what passes each device', async () => {
    const follow = async (words: string[], find: (text: string) => boolean): Promise<void> => {
      await using child = await bed.overlay.topology.start(bed.host(0), bed.command(...words, '--json'), {
        stdout: 'pipe',
        stderr: 'pipe',
        signal,
      });
      const [said, told] = [new LineFeed(child.stdout!), new LineFeed(child.stderr!)];
      await told.find((text) => text.startsWith('weft trace: watching'));
      await ping(bed.overlay.topology, bed.from, bed.to, '-W', '1');
      await said.find(find);
      child.kill('SIGINT');
      assert.equal((await child.exited).code, 0);
    };
    await follow(['--live', 'icmp', 'and', 'host', bed.to], (text) => {
      const { device, direction, inner } = JSON.parse(text) as {
        device: string;
        direction: string;
        inner?: { text: string };
      };
      return device === 'eth0' && direction === 'out' && inner?.text.includes(`> ${bed.to} icmp echo`) === true;
    });
    const { make, mend } = drop('forward', `ip daddr ${bed.to}`);
    await bed.sh(bed.host(0), make);
    await follow(['--drops'], (text) => {
      const { reason, device, packet } = JSON.parse(text) as {
        reason: string;
        device: string;
        packet: { text: string };
      };
      return reason === 'NETFILTER_DROP' && device === 'cni0' && packet.text.includes(`> ${bed.to} icmp echo`);
    });
    await bed.sh(bed.host(0), mend);
  });
});
