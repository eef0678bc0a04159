import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { VERSION } from '../../src/cmd/version.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { LabResult } from '../../src/lab/lab-result.ts';
import { HOST_DEVICE } from '../../src/lab/namespaces.ts';
import { Topology } from '../../src/lab/topology.ts';
import { lines, run } from '../../src/linux/run.ts';
import { subnetOf, Tunnel } from '../netns/tunnel.ts';

const ARCHITECTURE = process.arch === 'arm64' ? 'arm64' : 'amd64';
/** `make e2e` has made it. */
const FOLDER = join(import.meta.dirname, '..', '..', 'dist', `linux-${ARCHITECTURE}`);
const WEFT = join(FOLDER, 'weft');
const AGENT = join(FOLDER, 'flanneld');

/** No Node.js and nothing else of this repository can be found through it. */
const ENVIRONMENT = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', NODE_OPTIONS: '', NODE_PATH: '' };

describe('the one executable', () => {
  it('is there', () => assert.ok(existsSync(WEFT), `${WEFT} is missing: make dist`));

  for (const [how, flanneld, flannel] of [
    ['by the name it is started under', [join(FOLDER, 'flanneld')], [join(FOLDER, 'flannel')]],
    ['by its first argument', [WEFT, 'flanneld'], [WEFT, 'flannel']],
    [
      "by its first argument in the image, whose entry point is flanneld's name",
      [AGENT, 'flanneld'],
      [AGENT, 'flannel'],
    ],
  ] as const) {
    it(`is each of the programs, ${how}`, async () => {
      const agent = await run([...flanneld, '--version'], { env: ENVIRONMENT });
      assert.equal(agent.stderr, `${VERSION}\n`);
      const plugin = await run(flannel, {
        env: { ...ENVIRONMENT, CNI_COMMAND: 'VERSION' },
        stdin: '{"cniVersion":"1.0.0"}',
      });
      assert.equal(plugin.stderr, '');
      assert.equal((JSON.parse(plugin.stdout) as { cniVersion: string }).cniVersion, '1.1.0');
      const about = await run(flannel, { env: ENVIRONMENT });
      assert.match(
        about.stderr,
        new RegExp(`^CNI Plugin flannel version ${VERSION} \\(linux/${ARCHITECTURE}\\) commit [0-9a-f]{12},`, 'm'),
      );
    });
  }

  it('is weft otherwise', async () => {
    assert.match((await run([WEFT, '--help'], { env: ENVIRONMENT })).stdout, /^Usage: weft /);
    assert.match((await run([AGENT, 'weft', '--help'], { env: ENVIRONMENT })).stdout, /^Usage: weft /);
    assert.equal((await run([WEFT, 'no-such-verb'], { env: ENVIRONMENT, okExitCodes: 'any' })).exitCode, 2);
  });

  it('starts from its code cache, and names the sources in its log', async () => {
    const { stderr } = await run([WEFT, 'flanneld', '--subnet-mgr=local', '--iface=no-such-device'], {
      env: { ...ENVIRONMENT, FLANNELD_NET_CONFIG_PATH: '/dev/null', FLANNELD_SUBNET_FILE: '/dev/null/subnet.env' },
      okExitCodes: 'any',
      timeoutMs: 30_000,
    });
    // Node.js warns when it was built with other flags than it runs with.
    assert.doesNotMatch(stderr, /Code cache data rejected/);
    assert.match(stderr, /^I\d{4} [\d:.]+ +\d+ main\.ts:\d+\] CLI flags config: /m);
  });

  it('has what only some agents load: gRPC for etcd, and the client of Kubernetes for a SOCKS proxy', async () => {
    await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
    const host = topology.hosts[0]!;
    const at = (name: string): string => join(host.stateDirectory, name);
    const proxied = { server: 'https://127.0.0.1:1', 'proxy-url': 'socks5://127.0.0.1:1' };
    const kubeconfig = {
      ...{ 'current-context': 'c', contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }] },
      ...{ clusters: [{ name: 'c', cluster: proxied }], users: [{ name: 'u', user: { token: 'a-token' } }] },
    };
    writeFileSync(at('kubeconfig'), JSON.stringify(kubeconfig));
    writeFileSync(at('net-conf.json'), '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}');
    for (const store of [
      ['--etcd-endpoints=http://127.0.0.1:1'],
      ['--kube-subnet-mgr', `--kubeconfig-file=${at('kubeconfig')}`, `--net-config-path=${at('net-conf.json')}`],
    ]) {
      const files = [`--iface=${HOST_DEVICE}`, `--subnet-file=${at('subnet.env')}`, '--api-socket='];
      const env = { ...ENVIRONMENT, NODE_NAME: 'a-node' };
      await using agent = await topology.start(host, ['timeout', '60', AGENT, ...store, ...files], {
        stderr: 'pipe',
        env,
      });
      let log = '';
      for await (const line of lines(agent.stderr!)) {
        log += `${line}\n`;
        if (line.includes('ECONNREFUSED')) break;
      }
      assert.match(log, /connect ECONNREFUSED 127\.0\.0\.1:1/);
    }
  });

  it('carries packets between two hosts', async () => {
    await using topology = await Topology.create({ hosts: 2, containersPerHost: 0, purpose: 'test' });
    const [a, b] = topology.hosts as [(typeof topology.hosts)[0], (typeof topology.hosts)[0]];
    const { child } = await Tunnel.start(topology, a, { peers: [{ host: b }], weft: [WEFT] });
    await Tunnel.start(topology, b, { peers: [{ host: a }], weft: [WEFT] });
    const { stdout } = await topology.exec(a, ['ping', '-c', '3', '-i', '0.2', formatIpv4(subnetOf(b).addr)]);
    assert.match(stdout, /3 received/);
    // Its packet workers have not made a file and a mapping of their own.
    const mappings = readFileSync(`/proc/${child.pid}/maps`, 'utf8').split('\n');
    assert.equal(mappings.filter((line) => / r-xp .*\/koffi\.node/.test(line)).length, 1);
  });

  it('runs a lab, whose agents are itself, and leaves no file behind', async () => {
    const TMPDIR = mkdtempSync(join(tmpdir(), 'weft-executable-'));
    try {
      const { stdout } = await run([WEFT, 'lab', '--hosts', '2', '--json'], { env: { ...ENVIRONMENT, TMPDIR } });
      assert.deepEqual((JSON.parse(stdout) as LabResult).failures, []);
      const files = readdirSync(TMPDIR, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
      assert.deepEqual(
        files.map(({ name }) => name).filter((name) => name.endsWith('.node')),
        [],
      );
    } finally {
      rmSync(TMPDIR, { recursive: true });
    }
  });

  it('says what it needs where its native part cannot be loaded', async () => {
    // The executable itself may lie below one of these folders: a checkout in /tmp.
    const script =
      'mount --bind "$1" /mnt || exit 99; shift; ' +
      'for folder in /tmp /var/tmp /run /dev/shm; do mount -t tmpfs -o noexec none "$folder" || exit 99; done; ' +
      'exec /mnt/weft "$@"';
    const tunnel = ['tunnel', '--address', '10.244.1.0/16', '--listen', '127.0.0.1:8285'];
    const { exitCode, stderr } = await run(['unshare', '--mount', 'sh', '-c', script, 'sh', FOLDER, ...tunnel], {
      env: { ...ENVIRONMENT, TMPDIR: '/tmp' },
      okExitCodes: 'any',
    });
    assert.equal(exitCode, 1);
    assert.match(stderr, /^weft: cannot load the system call interface: .*\[WEFT_ADDON_UNLOADABLE\].*TMPDIR/);
  });
});
