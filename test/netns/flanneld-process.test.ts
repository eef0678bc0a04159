import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { mapLimit } from '../../src/lab/map-limit.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { NotifySocket } from '../fakes/notify-socket.ts';
import { Flanneld, localFlags } from './flanneld.ts';
import { NET_CONF } from './overlay.ts';
import { eventually } from './waiting.ts';

/** The agent as its operators meet it: command line, environment, exit codes, what it prints and in which order. */

/** Agents that start at once: as many as the smallest machine has processors. */
const AT_A_TIME = 2;

let topology: Topology;
let host: LabHost;
before(async () => {
  topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
  host = topology.hosts[0]!;
});
after(() => topology?.[Symbol.asyncDispose]());

/** Runs it to its end. */
async function ended(flags: readonly string[], env: Record<string, string> = {}) {
  await using agent = await Flanneld.start(topology, host, { flags, env });
  return await agent.ended();
}

/** A folder of its own for one agent. */
let folders = 0;
function freshHost(): LabHost {
  const stateDirectory = join(host.stateDirectory, `run${folders++}`);
  mkdirSync(stateDirectory, { recursive: true });
  return { ...host, stateDirectory };
}

/** A klog line as log collectors split it. */
const KLOG = /^[IWE]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w-]+\.ts:\d+\] ./;

/** Runs a program on the host; its standard output. */
async function shown(...argv: string[]): Promise<string> {
  return (await topology.exec(host, argv)).stdout;
}

describe('the end of the agent', () => {
  it('prints the version alone, to standard error, with exit code 0', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
      version: string;
    };
    for (const flag of ['-version', '--version']) {
      const { code, stderr, stdout } = await ended([flag]);
      assert.deepEqual({ code, stderr, stdout }, { code: 0, stderr: `${version}\n`, stdout: '' });
    }
  });

  it('prints its usage to standard error for -h and --help, with exit code 0', async () => {
    for (const flag of ['-h', '--help']) {
      const { code, stderr, stdout } = await ended([flag]);
      assert.equal(code, 0);
      assert.match(stderr, /^Usage: flanneld \[OPTION\]\.\.\.\n {2}-\w/);
      assert.equal(stdout, '');
    }
  });

  it('refuses a flag that it does not know or cannot read, with its usage and exit code 2', async () => {
    await mapLimit(['--no-such-flag', '-v=x', '--healthz-port'], AT_A_TIME, async (flag) => {
      const { code, stderr } = await ended([flag]);
      assert.equal(code, 2, flag);
      assert.match(stderr, /^flanneld: cannot read the command line: .*\[WEFT_USAGE\].*\nUsage: flanneld/);
    });
  });

  it('refuses a variable that it cannot read, and names it, where flannel goes on with 0', async () => {
    const { code, stderr } = await ended([], { FLANNELD_IPTABLES_RESYNC: 'abc' });
    assert.equal(code, 2);
    assert.match(stderr, /FLANNELD_IPTABLES_RESYNC: invalid value "abc" for flag -iptables-resync: parse error/);
  });

  it('has exit code 1 and flannel’s words for what a person must mend', async () => {
    const cases: [string[], string, RegExp][] = [
      [
        ['--subnet-lease-renew-margin=0'],
        NET_CONF,
        /Invalid subnet-lease-renew-margin option, out of acceptable range/,
      ],
      [
        ['--subnet-lease-renew-margin=1440'],
        NET_CONF,
        /Invalid subnet-lease-renew-margin option, out of acceptable range/,
      ],
      [[], '{"Network": "10.244.0.0/16", "EnableIPv4": false}', /none defined stack/],
      [
        [],
        '{"Network": "10.244.0.0/16", "Backend": {"Type": "Carrier"}}',
        /Error fetching backend: unknown backend type: carrier/,
      ],
      [[], '{"Network": "10.244.0.0/16", "Backend": {}}', /unknown backend type: /],
      [[], '{"Network": "10.244.0.0"}', /error parsing subnet config: .*invalid IPv4 CIDR format/],
      [
        ['--iface=nope'],
        NET_CONF,
        /Failed to find interface to use that matches the interfaces and\/or regexes provided/,
      ],
      [
        ['--public-ip=203.0.113.9'],
        NET_CONF,
        /Failed to find any valid interface to use: error looking up interface 203\.0\.113\.9: no interface with given IP found/,
      ],
      [['--healthz-port=8081', '--healthz-ip=203.0.113.9'], NET_CONF, /Start healthz server error\. /],
    ];
    await mapLimit(cases, AT_A_TIME, async ([flags, netConf, expected]) => {
      const { code, stderr } = await ended(localFlags(freshHost(), netConf, ...flags));
      assert.match(stderr, expected);
      assert.equal(code, 1, stderr);
    });
    const mounts: [string, RegExp][] = [
      [
        'mount -t tmpfs -o ro none /dev/net',
        /Error registering network: failed to open TUN device: open \/dev\/net\/tun: no such file or directory/,
      ],
      // All programs of iptables are one file, which ends with exit code 1 here.
      ['mount --bind /bin/false "$(command -v iptables)"', /Failed to setup masq rules, /],
    ];
    for (const [mount, expected] of mounts) {
      const own = freshHost();
      const under = ['unshare', '--mount', 'sh', '-c', `${mount}; exec "$@"`, 'sh'];
      await using agent = await Flanneld.start(topology, host, {
        flags: localFlags(own, NET_CONF, '--ip-masq'),
        under,
      });
      const { code, stderr } = await agent.ended();
      assert.match(stderr, expected);
      assert.equal(code, 1);
      assert.ok(!existsSync(join(own.stateDirectory, 'subnet.env')));
    }
    const { code, stderr } = await ended(['--kube-subnet-mgr', '--kubeconfig-file=/nonexistent'], { NODE_NAME: 'h1' });
    assert.match(stderr, /Failed to create SubnetManager: fail to create kubernetes config: /);
    assert.equal(code, 1);
  });

  it('has exit code 0 when a signal ends the wait for a configuration', async () => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      await using agent = await Flanneld.start(topology, host, { flags: localFlags(freshHost(), undefined) });
      await agent.logged(/^Couldn't fetch network config: failed to read net conf: /);
      agent.child.kill(name);
      const { code, stdout } = await agent.ended();
      assert.equal(code, 0);
      assert.equal(agent.messages.at(-1), 'Exiting cleanly...');
      assert.equal(stdout, '', 'and nothing on standard output, where flannel writes "timed out" every second');
    }
  });
});

describe('a start', () => {
  it('logs flannel’s lines, in flannel’s order and klog’s form, and ends with exit code 0', async () => {
    const own = freshHost();
    const flags = localFlags(own, NET_CONF, '--ip-masq', '--healthz-port=8081');
    await using agent = await Flanneld.start(topology, host, { flags });
    await agent.logged(/^Running backend\.$/);
    agent.child.kill('SIGTERM');
    const { code } = await agent.ended();
    assert.equal(code, 0);
    for (const { text } of agent.log.seen) assert.match(text, KLOG);
    const subnetFile = join(own.stateDirectory, 'subnet.env');
    const subnet = /^FLANNEL_SUBNET=(.*)\.1\/24$/m.exec(readFileSync(subnetFile, 'utf8'))![1]!;
    const expected = [
      /^CLI flags config: \{etcdEndpoints:http:\/\/127\.0\.0\.1:4001,http:\/\/127\.0\.0\.1:2379 etcdPrefix:\/coreos\.com\/network /,
      /^Installing signal handlers$/,
      /^Start healthz server on 0\.0\.0\.0:8081$/,
      /^Created subnet manager: Local Subnet Manager - /,
      /^Found network config - Backend type: udp$/,
      /^Determining IP address of default interface$/,
      /^Using interface with name eth0 and address 192\.168\.77\.1$/,
      /^Defaulting external address to interface address \(192\.168\.77\.1\)$/,
      /^Picking subnet in range 10\.244\.1\.0 \.\.\. 10\.244\.255\.0$/,
      `Allocated lease (ip: ${subnet}.0/24 ipv6: ::/0) to current node (192.168.77.1)`,
      /^Cleaning-up unused traffic manager rules$/,
      /^Starting flannel in iptables mode\.\.\.$/,
      `Current network or subnet (10.244.0.0/16, ${subnet}.0/24) is not equal to previous one (0.0.0.0/0, 0.0.0.0/0), trying to recycle old iptables rules`,
      /^Setting up masking rules$/,
      /^Changing default FORWARD chain policy to ACCEPT$/,
      /^bootstrap done$/,
      `Wrote subnet file to ${subnetFile}`,
      /^flannel is ready$/,
      /^Running backend\.$/,
      /^Waiting for all goroutines to exit$/,
      /^Exiting cleanly\.\.\.$/,
    ];
    let at = 0;
    for (const line of expected) {
      const fits = (text: string): boolean => (typeof line === 'string' ? text === line : line.test(text));
      const found = agent.messages.findIndex((text, i) => i >= at && fits(text));
      assert.ok(found >= 0, `${line} after line ${at} of:\n${agent.messages.join('\n')}`);
      at = found + 1;
    }
  });

  it('takes everything from FLANNELD_ variables, and the command line first', async () => {
    const own = freshHost();
    const flags = localFlags(own, NET_CONF);
    const env: Record<string, string> = { FLANNELD_IFACE: 'nope', FLANNELD_IP_MASQ: 'true', FLANNELD_V: '1' };
    for (const flag of flags) {
      const [name, value] = flag.slice(2).split('=');
      env[`FLANNELD_${name!.toUpperCase().replaceAll('-', '_')}`] = value!;
    }
    await using agent = await Flanneld.start(topology, host, { flags: ['-iface', 'eth0'], env });
    await agent.logged(/^flannel is ready$/);
    assert.match(readFileSync(join(own.stateDirectory, 'subnet.env'), 'utf8'), /^FLANNEL_IPMASQ=true$/m);
    assert.ok(agent.messages.some((text) => / ipMasq:true /.test(text)));
    assert.equal(await shown('ss', '-Hltn'), '', 'no health server unless a port is given');
  });

  it('takes empty values for ones that are not given, and empty entries of lists', async () => {
    const empty = [
      '--iface=',
      '--iface-regex',
      '',
      '--iface-can-reach=',
      '--public-ip=',
      '--etcd-endpoints=,',
      '--v=1',
    ];
    const flags = localFlags(freshHost(), NET_CONF, ...empty);
    await using agent = await Flanneld.start(topology, host, { flags, env: { FLANNELD_IFACE: '' } });
    await agent.logged(/^flannel is ready$/);
    assert.ok(agent.messages.includes('Determining IP address of default interface'));
    assert.match(
      agent.messages[0]!,
      /\{etcdEndpoints:http:\/\/127\.0\.0\.1:4001,http:\/\/127\.0\.0\.1:2379 .* iface:\[\] ifaceRegex:\[\] /,
    );
    agent.child.kill('SIGTERM');
    await agent.ended();
    // flannel takes the default route's interface for such an entry, and then any public address.
    const nat = ['--iface', 'nope', '--iface=', '--public-ip=203.0.113.9'];
    await using behindNat = await Flanneld.start(topology, host, { flags: localFlags(freshHost(), NET_CONF, ...nat) });
    await behindNat.logged(/^Using 203\.0\.113\.9 as external address$/);
    assert.ok(behindNat.messages.some((text) => text.startsWith('Could not find valid interface matching nope: ')));
  });

  it('shows the password of etcd nowhere', async () => {
    const flags = ['--etcd-endpoints=http://127.0.0.1:1', '--etcd-username=root', '--etcd-password=hunter2', '-v=10'];
    await using agent = await Flanneld.start(topology, host, { flags });
    await agent.logged(/^Couldn't fetch network config \(trying again in /);
    agent.child.kill('SIGTERM');
    const { code, stderr } = await agent.ended();
    assert.equal(code, 0);
    assert.match(stderr, / etcdUsername:root etcdPassword:<redacted> /);
    assert.match(stderr, /Created subnet manager: Etcd Local Manager with Previous Subnet: None\n/);
    assert.match(stderr, /\nW.*no certificate provided: connecting to etcd with http\. This is insecure/);
    assert.doesNotMatch(stderr, /hunter2/);
  });

  it('says more from -v=1 on, in any of Go’s forms, and with -vmodule for one file', async () => {
    const detail = /^nat\/FLANNEL-POSTRTG \(IPv4\): missing: /;
    for (const [flags, isShown] of [
      [[], false],
      [['-v=0', '--vmodule=agent=3'], false],
      [['-v=1'], true],
      [['--v', '10'], true],
      [['--vmodule=other=3,traf*=1'], true],
    ] as const) {
      await shown('iptables', '-w', '-t', 'nat', '-F');
      const all = localFlags(freshHost(), NET_CONF, '--ip-masq', ...flags);
      await using agent = await Flanneld.start(topology, host, { flags: all });
      await agent.logged(/^flannel is ready$/);
      assert.equal(
        agent.messages.some((text) => detail.test(text)),
        isShown,
        flags.join(' '),
      );
    }
  });

  it('says at -v=10 which programs it runs, for how long, what it asks the API server, and each lease event', async () => {
    const own = freshHost();
    {
      await using agent = await Flanneld.start(topology, host, { flags: localFlags(own, NET_CONF, '-v=10') });
      await agent.logged(/^Lease event: snapshot of \d+ leases$/);
      await agent.logged(/^Ran ip -j .*: exit code 0 after \d+\.\d ms$/);
    }
    const netConf = join(own.stateDirectory, 'none.json');
    const flags = ['--kube-subnet-mgr', '--kube-api-url=http://127.0.0.1:1', `--net-config-path=${netConf}`, '-v=10'];
    await using agent = await Flanneld.start(topology, host, { flags, env: { NODE_NAME: 'h1' } });
    await agent.logged(/^Couldn't fetch network config: failed to read net conf: ENOENT/);
    await agent.logged(/^GET http:\/\/127\.0\.0\.1:1\/api\/v1\/nodes\?.*: connect ECONNREFUSED .* after \d+\.\d ms$/);
  });

  it('writes JSON lines on request, and a stack trace where it is asked for one', async () => {
    const plain = localFlags(freshHost(), NET_CONF, '--log-format=json');
    await using first = await Flanneld.start(topology, host, { flags: plain });
    const entry = (text: string) =>
      JSON.parse(text) as { message: string; level: string; caller: string; stack?: string };
    const isReady = (text: string): boolean => entry(text).message === 'flannel is ready';
    const ready = entry((await first.log.find(isReady)).text);
    assert.equal(ready.level, 'info');
    first.child.kill('SIGTERM');
    await first.ended();
    for (const { text } of first.log.seen) assert.equal(typeof entry(text).caller, 'string');
    assert.ok(first.log.seen.every(({ text }) => entry(text).stack === undefined));

    const flags = [...plain, `--log_backtrace_at=${ready.caller}`];
    await using second = await Flanneld.start(topology, host, { flags });
    const [frame = ''] = (entry((await second.log.find(isReady)).text).stack ?? '').split('\n');
    assert.ok(frame.includes(`/${ready.caller}:`), frame);
  });

  it('explains its choice of interface and exits, with 1 when there is none', async () => {
    const flags = localFlags(freshHost(), NET_CONF, '--explain-iface');
    const found = await ended(flags);
    assert.equal(found.code, 0);
    assert.match(found.stdout, /^\* +eth0 +192\.168\.77\.1.* chosen: .*default route/m);
    assert.match(found.stdout, /^ +lo +127\.0\.0\.1/m);
    await mapLimit(
      ['--iface-can-reach=192.168.77.99', '--iface-regex=^eth', '--iface=192.168.77.1'],
      AT_A_TIME,
      async (wish) => assert.match((await ended([...flags, wish])).stdout, /^\* +eth0 /m, wish),
    );
    const none = await ended([...flags, '--iface=wlan7']);
    assert.equal(none.code, 1);
    assert.match(none.stdout, /error looking up interface wlan7/);
  });

  it('wants br_netfilter in iptables mode alone', async () => {
    const hidden = 'test ! -d /proc/sys/net/bridge || mount -t tmpfs none /proc/sys/net/bridge || exit 99; exec "$@"';
    const under = ['unshare', '--mount', 'sh', '-c', hidden, 'sh'];
    const nft = NET_CONF.replace('{', '{"EnableNFTables": true, ');
    {
      const flags = localFlags(freshHost(), NET_CONF);
      await using agent = await Flanneld.start(topology, host, { flags, under });
      const { code, stderr } = await agent.ended();
      assert.equal(code, 1);
      assert.match(
        stderr,
        /Failed to check br_netfilter: stat \/proc\/sys\/net\/bridge\/bridge-nf-call-iptables: no such file or directory \[WEFT_BRIDGE_NETFILTER\].*modprobe br_netfilter/,
      );
    }
    for (const flags of [
      localFlags(freshHost(), nft),
      localFlags(freshHost(), NET_CONF, '--skip-br-netfilter-check'),
    ]) {
      await using agent = await Flanneld.start(topology, host, { flags, under });
      await agent.logged(/^flannel is ready$/);
    }
  });
});

describe('health', () => {
  it('is not ready before it is, with the reason, and again while the data path is broken', async () => {
    const own = freshHost();
    const flags = localFlags(own, undefined, '--healthz-port=8081');
    await using agent = await Flanneld.start(topology, host, { flags });
    const answer = await agent.answers(
      '/readyz',
      503,
      /^flanneld is not ready: no network configuration: failed to read net conf: /,
    );
    assert.equal(answer.contentType, 'text/plain; charset=utf-8');
    assert.equal((await agent.get('/healthz')).body, 'flanneld is running');
    writeFileSync(join(own.stateDirectory, 'net-conf.json'), NET_CONF);
    await agent.answers('/readyz', 200, /^flanneld is ready$/);

    // A device of the wrong kind in place of the TUN device cannot be opened.
    await topology.ipBatch(host, 'link del flannel0\nlink add flannel0 type bridge\n');
    await agent.answers('/readyz', 503, /^flanneld is not ready: .*flannel0/);
    assert.equal((await agent.get('/healthz')).status, 200);
    await topology.ipBatch(host, 'link del flannel0\n');
    await agent.answers('/readyz', 200, /^flanneld is ready$/);
    assert.match(await shown('ip', 'route', 'show', 'dev', 'flannel0'), /^10\.244\.0\.0\/16 /m);
  });

  it('answers, and is not ready, while the API server cannot be reached', async () => {
    const own = freshHost();
    const kubeconfig = join(own.stateDirectory, 'kubeconfig');
    const named = (kind: string, value: object) => [{ name: 'x', [kind]: value }];
    writeFileSync(
      kubeconfig,
      JSON.stringify({
        clusters: named('cluster', { server: 'http://127.0.0.1:1' }),
        users: named('user', { token: 'secret' }),
        contexts: named('context', { cluster: 'x', user: 'x' }),
        'current-context': 'x',
      }),
    );
    const flags = ['--kube-subnet-mgr', `--kubeconfig-file=${kubeconfig}`, '--healthz-port=8081'];
    await using agent = await Flanneld.start(topology, host, { flags, env: { NODE_NAME: 'h1' } });
    await agent.logged(/^Waiting 10m0s for node controller to sync$/);
    await agent.answers('/readyz', 503, /^flanneld is not ready: Error watching \/api\/v1\/nodes .*ECONNREFUSED/);
    assert.equal((await agent.get('/healthz')).status, 200);
    agent.child.kill('SIGTERM');
    assert.equal((await agent.ended()).code, 0);
  });

  it('is not ready while subnet.env cannot be written', async () => {
    const own = freshHost();
    const blocker = join(own.stateDirectory, 'blocker');
    writeFileSync(blocker, '');
    const flags = [...localFlags(own, NET_CONF, '--healthz-port=8081'), `--subnet-file=${blocker}/subnet.env`];
    await using agent = await Flanneld.start(topology, host, { flags });
    const line = await agent.logged(/^Failed to write subnet file: .*\[WEFT_SUBNET_FILE_UNWRITABLE\]/);
    assert.match(line, /^W/);
    await agent.answers('/readyz', 503, /^flanneld is not ready: Failed to write subnet file: /);
    rmSync(blocker);
    await agent.answers('/readyz', 200, /^flanneld is ready$/);
    assert.match(readFileSync(join(blocker, 'subnet.env'), 'utf8'), /^FLANNEL_NETWORK=10\.244\.0\.0\/16\n/);
  });

  it('tells systemd of its start, its end, and in between that it lives', async () => {
    using manager = new NotifySocket('path');
    const env = { NOTIFY_SOCKET: manager.target, WATCHDOG_USEC: '200000' };
    const flags = localFlags(freshHost(), NET_CONF);
    await using agent = await Flanneld.start(topology, host, { flags, env });
    const heard: string[] = [];
    const hear = async (message: string): Promise<void> => {
      await eventually(message, () => {
        heard.push(...manager.received());
        return heard.includes(message) || undefined;
      });
    };
    await hear('READY=1');
    assert.ok(agent.messages.includes('flannel is ready'));
    heard.length = 0;
    await hear('WATCHDOG=1');
    agent.child.kill('SIGTERM');
    await hear('STOPPING=1');
    assert.equal((await agent.ended()).code, 0);
    assert.equal(heard.filter((message) => message === 'STOPPING=1').length, 1);
  });

  it('leaves a second signal to the system, which ends it at once', async () => {
    const flags = localFlags(freshHost(), NET_CONF, '--healthz-port=8081');
    await using agent = await Flanneld.start(topology, host, { flags });
    await agent.answers('/readyz', 200, /ready/);
    // Half a request keeps the health server, and with it the end of the agent, waiting for some seconds.
    const half = await topology.start(host, ['socat', 'STDIO', 'TCP4:127.0.0.1:8081'], { stdin: 'pipe' });
    half.stdin!.write('GET /healthz HTTP/1.1\r\n');
    await eventually('the connection is there', async () => {
      const connections = await shown('ss', '-Htn', 'state', 'established', 'sport', '=', ':8081');
      return connections !== '' || undefined;
    });
    agent.child.kill('SIGTERM');
    await agent.logged(/^Waiting for all goroutines to exit$/);
    agent.child.kill('SIGINT');
    const { code, signal, stderr } = await agent.ended();
    assert.deepEqual({ code, signal }, { code: undefined, signal: 'SIGINT' });
    assert.doesNotMatch(stderr, /Exiting cleanly/);
  });
});

describe('what the flags about traffic do', () => {
  it('--ip-blackhole-route: the route is there, comes back, and gives way to the bridge', async () => {
    const own = freshHost();
    const flags = localFlags(own, NET_CONF, '--ip-blackhole-route');
    await using agent = await Flanneld.start(topology, host, { flags });
    await agent.logged(/^flannel is ready$/);
    const [, base] = /^FLANNEL_SUBNET=(.*)\.1\/24$/m.exec(
      readFileSync(join(own.stateDirectory, 'subnet.env'), 'utf8'),
    )!;
    const blackhole = () => shown('ip', 'route', 'show', 'type', 'blackhole');
    assert.match(await blackhole(), new RegExp(`^blackhole ${base}\\.0/24 `));
    await topology.ipBatch(host, `route del blackhole ${base}.0/24\n`);
    await eventually('the route is back', async () => (await blackhole()) !== '' || undefined);
    await topology.ipBatch(host, `link add cni0 type bridge\naddr add ${base}.1/24 dev cni0\nlink set cni0 up\n`);
    assert.match(await shown('ip', 'route', 'get', `${base}.77`), /dev cni0/);
    await topology.ipBatch(host, 'link del cni0\n');
    const gone = await topology.exec(host, ['ip', 'route', 'get', `${base}.77`], { okExitCodes: 'any' });
    assert.match(gone.stderr, /Invalid argument/);
  });

  it('--ip-masq, --ip-masq-fully-random-disable and --iptables-forward-rules', async () => {
    for (const [flags, masquerade, forward] of [
      [[], /^$/, /FLANNEL-FWD/],
      [['--ip-masq'], /-j MASQUERADE --random-fully/, /FLANNEL-FWD/],
      [['--ip-masq', '--ip-masq-fully-random-disable'], /-j MASQUERADE$/m, /FLANNEL-FWD/],
      [['--iptables-forward-rules=false'], /^$/, /^$/],
    ] as const) {
      await using agent = await Flanneld.start(topology, host, { flags: localFlags(freshHost(), NET_CONF, ...flags) });
      await agent.logged(/^flannel is ready$/);
      const rules = async (table: string) =>
        (await shown('iptables-save', '-t', table)).split('\n').filter((line) => line.startsWith('-A'));
      assert.match((await rules('nat')).join('\n'), masquerade);
      assert.match((await rules('filter')).join('\n'), forward);
    }
  });
});
