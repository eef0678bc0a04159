import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { type Child, type RunResult, run } from '../../src/linux/run.ts';
import { LineFeed } from './waiting.ts';

const NODE = [process.execPath, '--disable-warning=ExperimentalWarning'];
const FLANNELD = [...NODE, fileURLToPath(new URL('../../src/cmd/flanneld/main.ts', import.meta.url))];
const WEFT = [...NODE, fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url))];
const NET_CONF = { Network: '10.244.0.0/16', Backend: { Type: 'udp' } };
/** Longer than any start takes: an agent that should end and runs on fails the test. */
const RUN_MS = 180_000;
const signal = new AbortController().signal;

/** A mount namespace in which /dev/net is empty. */
const NO_TUN = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$@"', 'sh'];
/** A mount namespace in which /usr/sbin is empty: neither iptables nor nft. */
const NO_RULES = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /usr/sbin && exec "$@"', 'sh'];
const without = (capability: string): string[] => ['setpriv', `--bounding-set=-${capability}`];

interface Start {
  /** An object is written as JSON. */
  readonly netConf?: unknown;
  readonly flags?: readonly string[];
  readonly prefix?: readonly string[];
  /** Agents with the same store share subnets. Default: one of its own. */
  readonly store?: string;
}

describe('an agent that cannot start', () => {
  let topology: Topology;
  let host: LabHost;
  let starts = 0;

  before(async () => {
    topology = await Topology.create({ hosts: 2, containersPerHost: 0, purpose: 'test' }, signal);
    host = topology.hosts[0]!;
  });
  after(() => topology?.[Symbol.asyncDispose]());

  /** The command line of an agent whose files are in a folder of their own. */
  async function agent(start: Start): Promise<{ argv: string[]; folder: string; store: string }> {
    const folder = join(topology.stateDirectory, `start${++starts}`);
    await mkdir(folder);
    const { netConf = NET_CONF, store = join(folder, 'subnets.db') } = start;
    await writeFile(join(folder, 'net-conf.json'), typeof netConf === 'string' ? netConf : JSON.stringify(netConf));
    const paths = {
      'local-store': store,
      'net-config-path': join(folder, 'net-conf.json'),
      'subnet-file': join(folder, 'subnet.env'),
    };
    const flags = Object.entries(paths).flatMap(([flag, path]) => [`--${flag}`, path]);
    const argv = [...(start.prefix ?? []), ...FLANNELD, '--subnet-mgr=local', '--ip-masq', ...flags];
    return { argv: [...argv, ...(start.flags ?? [])], folder, store };
  }

  async function hostState(on: LabHost): Promise<string> {
    const shown = await Promise.all(
      [
        ['ip', '-o', 'link', 'show'],
        ['ip', '-o', '-4', 'address', 'show'],
        ['ip', '-4', 'route', 'show', 'table', 'all'],
        ['ip', '-6', 'route', 'show', 'table', 'main'],
        ['nft', 'list', 'ruleset'],
      ].map((argv) => topology.exec(on, argv)),
    );
    // The carrier of a TUN device follows its process with a delay.
    return shown
      .map(({ stdout }) => stdout)
      .join('')
      .replaceAll(/NO-CARRIER,|,LOWER_UP| state \w+| linkdown/g, '');
  }

  /** Runs the agent to its end, which must come by itself, and must leave no trace on the host and no lease. */
  async function refused(start: Start, on = host): Promise<RunResult> {
    const before = await hostState(on);
    const { argv, folder, store } = await agent(start);
    const result = await topology.exec(on, argv, { okExitCodes: 'any', timeoutMs: RUN_MS });
    assert.equal(await hostState(on), before);
    assert.equal(existsSync(join(folder, 'subnet.env')), false);
    if (start.store === undefined) assert.equal(existsSync(store), false, 'no lease was taken');
    return result;
  }

  /** Starts an agent and waits until it says `line`. */
  async function running(start: Start, on: LabHost, line: string): Promise<Child> {
    const { argv } = await agent(start);
    await using stack = new AsyncDisposableStack();
    const child = stack.use(await topology.start(on, argv, { stdout: 'ignore', stderr: 'pipe' }));
    await new LineFeed(child.stderr!).find((text) => text.includes(line));
    stack.move();
    return child;
  }

  /** The last line that it logged, without klog's header. */
  function lastWords({ stderr }: RunResult): string {
    return (stderr.trimEnd().split('\n').at(-1) ?? '').replace(/^E\d{4} [^\]]*\] /, '');
  }

  function assertFailed(result: RunResult, ...patterns: readonly RegExp[]): void {
    for (const pattern of patterns) assert.match(result.stderr, pattern);
    assert.match(result.stderr, /^E\d{4} /m);
    assert.deepEqual([result.exitCode, result.stdout], [1, '']);
  }

  it('lists all that is wrong with net-conf.json at once, with JSON paths', async () => {
    const result = await refused({
      netConf: {
        Network: '10.244.0.0/33',
        subnetLen: 'many',
        EnableNFTables: 'yes',
        Backend: { Type: 'udp', Port: 99_999 },
      },
    });
    assertFailed(result, /\[WEFT_CONFIG_INVALID\]\. Correct all 4 problems in \S+\/net-conf\.json/);
    for (const path of ['$.Network', '$.subnetLen', '$.EnableNFTables', '$.Backend.Port']) {
      assert.ok(lastWords(result).includes(`${path}: `), `${path} in ${lastWords(result)}`);
    }
  });

  it('says where net-conf.json stops being JSON, and when it cannot be read', async () => {
    assertFailed(
      await refused({ netConf: '{\n  "Network": "10.244.0.0/16",\n}' }),
      /net-conf\.json: \$: .*\(line 3, column 1\) \[WEFT_CONFIG_INVALID\]/,
    );
    assertFailed(
      await refused({ flags: ['--net-config-path', topology.stateDirectory] }),
      /failed to read net conf: EISDIR.* \[WEFT_CONFIG_UNREADABLE\]/,
    );
  });

  it('names characters that cannot be seen, and where they are', async () => {
    assertFailed(
      await refused({ netConf: `\ufeff${JSON.stringify(NET_CONF)}` }),
      /net-conf\.json: \$: invalid character U\+FEFF \(byte order mark\) .*\(line 1, column 1\) \[WEFT_CONFIG_INVALID\]/,
    );
    assertFailed(
      await refused({ netConf: '{\n\u00a0 "Network": "10.244.0.0/16"}' }),
      /invalid character U\+00A0 \(no-break space\) .*\(line 2, column 1\) \[WEFT_CONFIG_INVALID\]/,
    );
    assertFailed(
      await refused({ netConf: { ...NET_CONF, Network: '10.244.0.0/16\u200b' } }),
      /\$\.Network: .* but is the string "10\.244\.0\.0\/16<U\+200B \(zero width space\)>"/,
    );
    assertFailed(
      await refused({ flags: ['--iface', 'eth0\u00a0'] }),
      /error looking up interface eth0<U\+00A0 \(no-break space\)>: no interface has that name/,
    );
  });

  it('wants whole numbers as Go does: without point and exponent', async () => {
    assertFailed(
      await refused({ netConf: '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp", "Port": 8285.0}}' }),
      /\$\.Backend\.Port: must be a whole number without point or exponent, but is 8285\.0 \[WEFT_CONFIG_INVALID\]/,
    );
  });

  for (const { what, netConf, says } of [
    {
      what: 'too small',
      netConf: { ...NET_CONF, Network: '10.244.0.0/29' },
      says: /\$\.Network: network is too small\. Minimum useful network prefix is \/28.*\[WEFT_CONFIG_INVALID\]/,
    },
    {
      what: 'too small for its subnets',
      netConf: { ...NET_CONF, Network: '10.244.0.0/24', SubnetLen: 25 },
      says: /\$\.SubnetLen: network must be able to accommodate at least four subnets.*\[WEFT_CONFIG_INVALID\]/,
    },
    {
      what: 'that overlaps the network between the hosts',
      netConf: { ...NET_CONF, Network: '192.168.0.0/16' },
      says: /192\.168\.0\.0\/16 overlaps the underlay: subnets are given out from 192\.168\.1\.0 to 192\.168\.255\.255, and 192\.168\.77\.1 in it is the address of this host \(eth0\) \[WEFT_CONFIG_INVALID\]/,
    },
    {
      what: 'for a backend that there is not',
      netConf: { ...NET_CONF, Backend: { Type: 'carrier-pigeon' } },
      says: /unknown backend type: carrier-pigeon \[WEFT_BACKEND_UNKNOWN\]/,
    },
  ]) {
    it(`refuses a network ${what}`, async () => assertFailed(await refused({ netConf }), says));
  }

  it('lists every interface with the reason why it was not taken', async () => {
    const result = await refused({ flags: ['--iface', 'nosuch0', '--iface-regex', '^172\\.'] });
    assertFailed(
      result,
      /tried nosuch0: error looking up interface nosuch0: no interface has that name/,
      /tried \^172\\\.: could not match pattern/,
      /^ {2}lo \(127\.0\.0\.1, ::1\): is not named nosuch0; .*match \^172\\\.$/m,
      /^ {2}eth0 \(192\.168\.77\.1, fe80:\S+\): is not named nosuch0; .*match \^172\\\. \[WEFT_INTERFACE_NOT_FOUND\]/m,
    );
    await topology.ipBatch(host, 'route del default\n');
    try {
      assertFailed(
        await refused({}),
        /there is no IPv4 default route/,
        /eth0 .*: there is no IPv4 default route \[WEFT_INTERFACE_NOT_FOUND\]/,
      );
    } finally {
      await topology.ipBatch(host, 'route add default via 192.168.77.254\n');
    }
  });

  it('refuses the loopback interface and its addresses unless forced', async () => {
    for (const [wish, why] of [
      ['lo', 'is the loopback interface, through which other hosts cannot be reached'],
      ['127.0.0.1', 'has 127\\.0\\.0\\.1, which no other host can reach'],
    ]) {
      assertFailed(
        await refused({ flags: ['--iface', wish!] }),
        new RegExp(`^ {2}lo \\(127\\.0\\.0\\.1, ::1\\): ${why} \\(--iface-allow-loopback allows it`, 'm'),
        /\[WEFT_INTERFACE_NOT_FOUND\]/,
      );
    }
    const forced = { flags: ['--iface=lo', '--iface-allow-loopback'] };
    await using child = await running(forced, host, 'Using interface with name lo and address 127.0.0.1');
    assert.ok(child.kill());
  });

  it('names who has the port', async () => {
    await using holder = await topology.start(host, ['socat', '-u', 'UDP4-RECV:8285,bind=192.168.77.1', 'STDOUT']);
    for (;;) {
      const { stdout } = await topology.exec(host, ['ss', '-Hlun', 'sport = :8285']);
      if (stdout !== '') break;
    }
    assertFailed(
      await refused({}),
      new RegExp(
        `failed to listen on UDP 192\\.168\\.77\\.1:8285: the port is in use by pid ${holder.pid} \\(socat\\) \\[WEFT_PORT_IN_USE\\]`,
      ),
    );
  });

  it('says what to mount when /dev/net/tun is missing and cannot be made', async () => {
    const result = await refused({ prefix: [...NO_TUN, ...without('mknod')] });
    assertFailed(
      result,
      /failed to open TUN device: open \/dev\/net\/tun: no such file or directory; making it \(mknod c 10 200\) failed with EPERM \[WEFT_TUN_MISSING\]/,
      /modprobe tun.*--device \/dev\/net\/tun/,
    );
  });

  it('makes /dev/net/tun where it may, and says so', async () => {
    await using child = await running(
      { prefix: NO_TUN },
      host,
      '/dev/net/tun did not exist; created it (character device 10:200)',
    );
    assert.ok(child.kill());
  });

  it('names the capability that is missing', async () => {
    assertFailed(
      await refused({ prefix: without('net_admin') }),
      /failed to attach to TUN device flannel0: operation not permitted \[WEFT_TUN_DENIED\]\. .*CAP_NET_ADMIN/,
    );
  });

  for (const { mode, netConf, command, debianPackage } of [
    { mode: 'iptables', netConf: NET_CONF, command: 'iptables-save', debianPackage: 'iptables' },
    { mode: 'nftables', netConf: { ...NET_CONF, EnableNFTables: true }, command: 'nft', debianPackage: 'nftables' },
  ]) {
    it(`says what to install when ${mode} is missing, before a subnet is taken`, async () => {
      const says = `Failed to setup masq rules, could not run ${command}: there is no such program \\[WEFT_COMMAND_MISSING\\]\\. On Debian: apt-get install ${debianPackage}`;
      assertFailed(await refused({ netConf, prefix: NO_RULES }), new RegExp(says));
    });
  }

  it('says when the subnets are used up, and leaves the others theirs', async () => {
    const store = join(topology.stateDirectory, 'exhausted.db');
    const netConf = { ...NET_CONF, SubnetMin: '10.244.9.0', SubnetMax: '10.244.9.0' };
    const [first, second] = topology.hosts as readonly [LabHost, LabHost];
    await using owner = await running({ netConf, store }, first, 'flannel is ready');
    const result = await refused({ netConf, store }, second);
    assertFailed(result, /out of subnets.*\[WEFT_SUBNET_EXHAUSTED\]/);
    assert.ok(owner.kill());
  });

  it('refuses a second agent on the same host, which leaves the first as it is', async () => {
    await using first = await running({}, host, 'flannel is ready');
    const holder = `pid ${first.pid} \\(node flanneld/main\\.ts\\)`;
    assertFailed(await refused({}), new RegExp(`the port is in use by ${holder} \\[WEFT_PORT_IN_USE\\]`));
    const otherPort = { ...NET_CONF, Backend: { Type: 'udp', Port: 9999 } };
    assertFailed(
      await refused({ netConf: otherPort }),
      new RegExp(`TUN device flannel0: it is in use by ${holder} \\(EBUSY\\) \\[WEFT_TUN_BUSY\\]`),
    );
  });

  it('says which flags cannot be read, all at once', async () => {
    const unknown = await refused({ flags: ['--no-such-flag'] });
    assert.equal(unknown.exitCode, 2);
    assert.match(unknown.stderr, /no-such-flag.*\[WEFT_USAGE\].*\nUsage: flanneld/s);
    const values = await refused({ flags: ['--subnet-lease-renew-margin=0', '--healthz-port=70000', '--public-ip=x'] });
    assert.equal(values.exitCode, 1);
    for (const part of ['subnet-lease-renew-margin', 'healthz-port', 'public-ip']) {
      assert.match(lastWords(values), new RegExp(`${part}.*\\[WEFT_USAGE\\]`));
    }
  });

  it('gives no advice that the next start refuses', async () => {
    const { stderr } = await refused({ netConf: { Network: '10.244.0.0/16', Backend: {} } });
    const advised = /unknown backend type: .*give it a Type, "([^"]+)" for instance/.exec(stderr)?.[1];
    assert.ok(advised !== undefined, stderr);
    const netConf = { Network: '10.244.0.0/16', Backend: { Type: advised } };
    await using child = await running({ netConf }, host, 'flannel is ready');
    assert.ok(child.kill());
  });

  it('warns of a network that is hardly meant, and starts', async () => {
    for (const [Network, warning] of [
      ['127.16.0.0/16', '127.16.0.0/16 has addresses of 127.0.0.0/8, loopback: such packets never leave a host'],
      ['239.0.0.0/16', '239.0.0.0/16 has addresses of 224.0.0.0/4, multicast'],
      ['10.9.9.0/27', '10.9.9.0/27 is tiny: it has room for 3 hosts with up to 5 containers each (/29)'],
      ['12.0.0.0/7', '12.0.0.0/7 is huge: containers cannot reach hosts outside the network'],
    ]) {
      await using child = await running(
        { netConf: { ...NET_CONF, Network } },
        host,
        `$.Network in the network configuration: ${warning}`,
      );
      assert.ok(child.kill());
    }
  });
});

describe('weft tunnel with arguments that make no sense', () => {
  const GOOD = ['--address', '10.244.1.0/16', '--listen', '127.0.0.1:8285', '--peer', '10.244.2.0/24=127.0.0.2'];
  const tunnel = (argv: readonly string[]): Promise<RunResult> =>
    run([...WEFT, 'tunnel', ...argv], { okExitCodes: 'any', timeoutMs: RUN_MS });

  for (const { argv, says } of [
    { argv: GOOD.slice(0, 4), says: /required option '--peer/ },
    { argv: [...GOOD, '--address', '10.244.1.0'], says: /Expected ADDRESS\/LENGTH/ },
    { argv: [...GOOD, '--address', '10.244.1.0/33'], says: /Expected ADDRESS\/LENGTH/ },
    { argv: [...GOOD, '--listen', '127.0.0.1'], says: /Expected ADDRESS:PORT/ },
    { argv: [...GOOD, '--listen', '127.0.0.1:0'], says: /"0" is not a port/ },
    { argv: [...GOOD, '--peer', '10.244.3.0/24'], says: /Expected SUBNET=ADDRESS/ },
    { argv: [...GOOD, '--mtu', '67'], says: /"67" is not an MTU/ },
    { argv: [...GOOD, '--source-check', 'maybe'], says: /Allowed choices are loose, strict, off/ },
    { argv: [...GOOD, '--destination-check', 'maybe'], says: /Allowed choices are loose, strict, off/ },
    { argv: [...GOOD, '--subnet', '10.244.1.0'], says: /Expected a subnet/ },
    { argv: [...GOOD, '--subnet', '10.244.3.0/24'], says: /does not fit --address 10\.244\.1\.0/ },
    {
      argv: [...GOOD, '--subnet', '10.0.0.0/8'],
      says: /does not fit --address 10\.244\.1\.0.*be inside 10\.244\.0\.0\/16/s,
    },
    { argv: [...GOOD, '--subnet', '10.244.0.0/22'], says: /overlaps 10\.244\.2\.0\/24, a peer's/ },
    { argv: [...GOOD, '--peer', '10.244.4.0/23=127.0.0.3'], says: /several lengths.*--subnet/s },
    { argv: [...GOOD, '--dev', 'a-name-that-is-too-long'], says: /must have 1 to 15 characters \[WEFT_USAGE\]/ },
    { argv: [...GOOD, 'stray'], says: /too many arguments/ },
    {
      argv: [
        ...GOOD,
        '--peer',
        '10.244.2.128/25=127.0.0.3',
        '--peer',
        '10.99.0.0/24=127.0.0.4',
        '--peer',
        '10.244.0.0/20=127.0.0.5',
      ],
      says: /peer 2: its subnet overlaps that of peer 1; peer 3: its subnet is not inside the network; peer 4: its subnet contains this host’s own address.*\[WEFT_USAGE\]/,
    },
  ]) {
    it(argv.join(' '), async () => {
      const { stdout, stderr, exitCode } = await tunnel(argv);
      assert.match(stderr, says);
      assert.deepEqual([exitCode, stdout], [2, '']);
    });
  }
});
