import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Answer } from '../../src/api/schema.ts';
import type { Report } from '../../src/diagnosis/report.ts';
import type { Child } from '../../src/linux/run.ts';
import { weft } from '../netns/lab-command.ts';
import { eventually, eventuallyHolds, LineFeed } from '../netns/waiting.ts';
import { DUAL_STACK, drop, TraceBed, underlay6 } from './trace-bed.ts';

const signal = AbortSignal.timeout(600_000);
const DNS_SERVER = fileURLToPath(new URL('./dns-server.ts', import.meta.url));
const [DNS, API] = ['10.96.0.10', '10.96.0.1'];

describe('weft test in dual stack', () => {
  let bed: TraceBed;
  before(async () => {
    bed = await TraceBed.create({ ...DUAL_STACK, Backend: { Type: 'udp' } });
  });
  after(async () => {
    await bed?.[Symbol.asyncDispose]();
  });

  const command = (...flags: string[]): string[] => [
    ...[...weft, 'test', '--subnet-file', `${bed.host(0).stateDirectory}/subnet.env`],
    ...flags,
  ];

  async function test(...flags: string[]): Promise<Report> {
    const options = { okExitCodes: [0, 1], timeoutMs: 60_000, signal };
    const { stdout } = await bed.overlay.topology.exec(bed.host(0), command('--json', ...flags), options);
    return JSON.parse(stdout) as Report;
  }

  const named = ({ problems }: Report): string[] =>
    problems.filter(({ severity }) => severity === 'error').map(({ where, fault }) => `${where}: ${fault}`);
  const peer = (family: 4 | 6): string => {
    const address = family === 4 ? bed.farAddress : underlay6(bed.host(1));
    const subnet = family === 4 ? bed.to.replace(/\d+$/, '0/24') : bed.to6!.replace(/2$/, '/64');
    return `${subnet} on ${address}`;
  };

  it('measures both families from the host and from a container, with fragments as well, and fits 80 columns', async () => {
    await eventuallyHolds(async () => {
      const report = await test();
      assert.deepEqual(named(report), [], JSON.stringify(report.problems));
      assert.deepEqual(
        report.paths.map(({ from, to }) => `${from} → ${to}`),
        [`host → ${peer(4)}`, `host → ${peer(6)}`, `container → ${peer(4)}`, `container → ${peer(6)}`],
      );
      for (const { from, to, result } of report.paths)
        assert.deepEqual([from, to, result.passes.full, result.passes.fragments], [from, to, 'yes', 'yes']);
    });
  });

  it('names fragments that are dropped in either family, in 80 columns', async () => {
    const ingress = 'nft add table inet t; nft "add chain inet t c { type filter hook prerouting priority -450; }"';
    const rules = ["'ip frag-off & 0x1fff != 0'", 'exthdr frag exists'].map(
      (match) => `nft add rule inet t c iifname flannel0 ${match} drop`,
    );
    await bed.sh(bed.host(1), [ingress, ...rules].join('; '));
    await eventuallyHolds(async () => {
      assert.deepEqual(named(await test('--host-only')), [
        `${peer(4)}: fragments-dropped`,
        `${peer(6)}: fragments-dropped`,
      ]);
    });
    const { stdout } = await bed.overlay.topology.exec(bed.host(0), command(), { okExitCodes: [1], timeoutMs: 60_000 });
    for (const line of stdout.split('\n')) assert.ok([...line].length <= 80, line);
    await bed.sh(bed.host(1), 'nft delete table inet t');
  });

  it('is told by background probes as well, when IPv6 alone is broken', async () => {
    const { topology } = bed.overlay;
    const host = bed.host(0);
    const ask = async (...words: string[]): Promise<string> =>
      (await topology.exec(host, [...weft, ...words], { okExitCodes: [0, 1], timeoutMs: 60_000, signal })).stdout;
    const target = ['--socket', `${host.stateDirectory}/weft.sock`];
    await eventuallyHolds(async () => {
      const { peers } = JSON.parse(await ask('peers', ...target, '--json')) as Answer<'/peers'>;
      const both = peers[0]?.probes?.map(({ family, rttMs, problem }) => [family, rttMs !== undefined, problem]);
      assert.deepEqual(both, [
        ['IPv4', true, undefined],
        ['IPv6', true, undefined],
      ]);
    });
    const { make, mend } = drop('input', 'iifname flannel0 meta nfproto ipv6');
    await bed.sh(bed.host(1), make);
    await eventuallyHolds(async () => {
      const words = (text: string): string => text.replaceAll(/\s+/g, ' ');
      assert.match(words(await ask('peers', ...target)), / - [\s\S]*&fd10:[^ ]*: IPv6: \S+: /);
      assert.match(words(await ask('status', ...target)), /✖ \S+&fd10:[^ ]*: IPv6: \S+: /);
      const { peers } = JSON.parse(await ask('peers', ...target, '--json')) as Answer<'/peers'>;
      const [four, six] = peers[0]!.probes!;
      assert.deepEqual([four!.problem, four!.rttMs !== undefined], [undefined, true]);
      assert.deepEqual([six!.fault !== undefined, six!.rttMs], [true, undefined]);
    });
    await bed.sh(bed.host(1), mend);
    await eventuallyHolds(async () => assert.doesNotMatch(await ask('status', ...target), /^✖/m));
  });

  it('names this host when it forwards nothing of its containers in IPv6', async () => {
    const { make, mend } = drop('forward', 'meta nfproto ipv6');
    await bed.sh(bed.host(0), make);
    await eventuallyHolds(async () => {
      const report = await test();
      assert.deepEqual(named(report), ['this host: not-forwarded']);
      assert.match(report.problems[0]!.cause, /over IPv6/);
    });
    await bed.sh(bed.host(0), mend);
  });

  it('asks the DNS of the cluster and the Service of its API from a container, and names the one that does not answer', async () => {
    const { topology } = bed.overlay;
    const start = (...argv: string[]): Promise<Child> => topology.start(bed.far, argv, { signal });
    const dns = await start(process.execPath, '--disable-warning=ExperimentalWarning', DNS_SERVER, '5353', API);
    await new LineFeed(dns.stdout!).find((line) => line === 'listening');
    await using _api = await start('socat', 'TCP4-LISTEN:6443,fork', 'EXEC:cat');
    await bed.sh(
      bed.host(0),
      [
        'nft add table ip t; nft "add chain ip t c { type nat hook prerouting priority -100; }"',
        `nft add rule ip t c ip daddr ${DNS} udp dport 53 dnat to ${bed.to}:5353`,
        `nft add rule ip t c ip daddr ${API} tcp dport 443 dnat to ${bed.to}:6443`,
      ].join('; '),
    );
    const found = async (): Promise<string[]> => {
      const { checks } = await test('--cluster-dns', DNS);
      return checks
        .filter(({ name }) => name === 'dns' || name === 'service')
        .map((one) => `${one.name} ${one.status}`);
    };
    await eventuallyHolds(async () => assert.deepEqual(await found(), ['dns ok', 'service ok']));
    await bed.sh(bed.host(0), 'nft flush chain ip t c');
    await bed.sh(bed.host(0), `nft add rule ip t c ip daddr ${DNS} udp dport 53 dnat to ${bed.to}:5353`);
    await eventuallyHolds(async () => assert.deepEqual(await found(), ['dns ok', 'service fail']));
    await dns[Symbol.asyncDispose]();
    await eventuallyHolds(async () => assert.deepEqual(named(await test('--cluster-dns', DNS)), ['this host: dns']));
    await bed.sh(bed.host(0), 'nft delete table ip t');
    assert.deepEqual(await found(), ['dns fail']);
  });

  it('says what it does not check and why, where that is no fault', async () => {
    const { topology } = bed.overlay;
    const host = bed.host(0);
    const skipped = ({ unchecked }: Report): string[] => unchecked.map(({ name }) => name);
    assert.deepEqual(skipped(await test()), [], 'this host is no node of Kubernetes');
    assert.deepEqual(skipped(await test('--host-only')), ['container-paths']);
    // What an agent of a node has left, where neither the kubelet's files nor the variables of a pod are to be seen.
    const [directory, junit] = [`${host.stateDirectory}/node`, `${host.stateDirectory}/junit.xml`];
    await bed.sh(
      host,
      `mkdir ${directory}; cp -a ${host.stateDirectory}/subnet.env* ${directory}; ln -s ../weft.sock ${directory}`,
    );
    const known = `${directory}/subnet.env.last-known.json`;
    writeFileSync(known, readFileSync(known, 'utf8').replace('"external":', '"node":{"internalIps":[]},"external":'));
    const onNode = [...weft, 'test', '--subnet-file', `${directory}/subnet.env`];
    const ran = await topology.exec(host, [...onNode, '--json'], { timeoutMs: 60_000, signal });
    const report = JSON.parse(ran.stdout) as Report;
    assert.deepEqual(skipped(report), ['dns', 'service'], ran.stdout);
    assert.equal(report.paths.length, 4);
    const rename = (from: string, to: string): Promise<void> =>
      topology.ipBatch(host, `link set ${from} down\nlink set ${from} name ${to}\nlink set ${to} up\n`, signal);
    await rename('cni0', 'cni9');
    const without = await topology.exec(host, [...onNode, '--junit', junit], { timeoutMs: 60_000, signal });
    await rename('cni9', 'cni0');
    const lines = without.stdout.split('\n');
    for (const name of ['container-paths', 'dns', 'service'])
      assert.ok(
        lines.some((line) => line.startsWith(`? ${name}: not checked: there is no cni0, `)),
        without.stdout,
      );
    assert.match(without.stdout, /^All that was checked works \(\d+ ms\)\.$/m);
    assert.match(
      readFileSync(junit, 'utf8'),
      /failures="0" skipped="3"[\s\S]*name="dns"><skipped message="there is no/,
    );
    // A device that was down has no address of IPv6 any more.
    assert.deepEqual(skipped(await test()), ['container-paths-ipv6']);
  });

  it('leaves nothing behind when it is killed', async () => {
    const devices = async (): Promise<string[]> => {
      const { stdout } = await bed.sh(bed.host(0), 'ls /sys/class/net; ip -o link show');
      return [...new Set(stdout.match(/wefttest\w+/g) ?? [])];
    };
    const running = await bed.overlay.topology.start(bed.host(0), command(), { stdout: 'ignore', signal });
    const [device] = await eventually('it has made a container', async () => {
      const found = await devices();
      return found.length > 0 ? found : undefined;
    });
    running.kill('SIGKILL');
    await running.exited;
    await eventually(`${device} is gone`, async () => ((await devices()).length === 0 ? true : undefined));
    assert.deepEqual(
      readdirSync('/run/netns').filter((name) => name.startsWith('weft-test-')),
      [],
    );
  });
});
