import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { apiSocketPath } from '../../src/config/agent-sockets.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { Topology } from '../../src/lab/topology.ts';
import { run } from '../../src/linux/run.ts';
import { Flanneld, HEALTHZ_PORT } from '../netns/flanneld.ts';
import { eventually, eventuallyHolds } from '../netns/waiting.ts';

/**
 * ipsec with the real charon, as far as a kernel without ESP goes: it agrees with the other host's on keys, and the agent keeps it,
 * its connections and the policies. Packets in the tunnel are tried in the guest (guest/init.sh).
 */

const PSK = '0123456789abcdef'.repeat(6);
const NET_CONF = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'ipsec', PSK } });
/** Each charon has its files in the one folder /run, also where several hosts are on one machine. */
const OWN_RUN = ['sh', '-c', 'mount -t tmpfs run /run && exec "$@"', 'sh'];
const NO_CHARON = ['sh', '-c', 'mount -t tmpfs none /usr/lib/ipsec && exec "$@"', 'sh'];
const WEFT = join(import.meta.dirname, '../../src/cmd/weft/main.ts');

describe('ipsec, with strongSwan’s charon', () => {
  let directory: string;
  let topology: Topology;
  let hosts: readonly [LabHost, LabHost];
  let agents: [Flanneld, Flanneld];

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weft-ipsec-'));
    topology = await Topology.create({
      ...{ hosts: 2, containersPerHost: 0, purpose: 'test', registryDirectory: directory },
    });
    hosts = topology.hosts as [LabHost, LabHost];
    agents = [await startAgent(hosts[0]), await startAgent(hosts[1])];
  });
  after(async () => {
    await topology?.[Symbol.asyncDispose]();
    if (directory !== undefined) await rm(directory, { recursive: true });
  });

  function flags(host: LabHost): string[] {
    return [
      ...['--subnet-mgr=local', `--local-store=${join(directory, 'subnets.db')}`, '-v=10'],
      ...[`--subnet-file=${join(host.stateDirectory, 'subnet.env')}`, `--healthz-port=${HEALTHZ_PORT}`],
      `--net-config-path=${join(directory, 'net-conf.json')}`,
    ];
  }

  async function startAgent(host: LabHost, under: readonly string[] = OWN_RUN): Promise<Flanneld> {
    await topology.exec(host, ['tee', join(directory, 'net-conf.json')], { stdin: NET_CONF });
    return await Flanneld.start(topology, host, { flags: flags(host), under });
  }

  /** Process ids. */
  async function charons(host: LabHost): Promise<string[]> {
    const { stdout } = await run(['ip', 'netns', 'pids', host.namespace]);
    const pids = stdout.split('\n').filter((line) => line !== '');
    const names = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')));
    return pids.filter((_, i) => names[i]?.trim() === 'charon');
  }

  /** What charon says of the connections that it has agreed on. */
  async function associations(host: LabHost): Promise<string> {
    const [pid = ''] = await charons(host);
    const argv = ['nsenter', '-t', pid, '-m', 'swanctl', '--list-sas'];
    return (await topology.exec(host, argv, { okExitCodes: 'any' })).stdout;
  }

  const subnetOf = async (host: LabHost): Promise<string> => {
    const text = await readFile(join(host.stateDirectory, 'subnet.env'), 'utf8');
    return /^FLANNEL_SUBNET=(.*)\.1\/24$/m.exec(text)![1]!;
  };
  const agreed = async (): Promise<void> => {
    for (const host of hosts) {
      await eventuallyHolds(async () =>
        assert.match(await associations(host), /ESTABLISHED, IKEv2[\s\S]*AES_CBC-256.HMAC_SHA2_256_128.*MODP_4096/),
      );
    }
  };

  async function policies(host: LabHost): Promise<string[]> {
    const { stdout } = await topology.exec(host, ['ip', '-o', 'xfrm', 'policy', 'list', 'nosock']);
    return stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.replaceAll(/[\\\s]+/g, ' ').trim())
      .sort();
  }

  it('is ready, and agrees with the other host on keys', async () => {
    for (const agent of agents) await agent.answers('/readyz', 200, /.*/);
    await agreed();
    const [own, peer] = [await subnetOf(hosts[0]), await subnetOf(hosts[1])];
    const name = new RegExp(`^[\\d.]+-${own}\\.0/24-${peer}\\.0/24-[\\d.]+: `, 'm');
    assert.match(await associations(hosts[0]), name);
    await agents[0].answers('/metrics', 200, new RegExp(`^weft_ipsec_tunnel_up\\{peer="${peer}\\.0/24"\\} [01]$`, 'm'));
  });

  it('has three policies for the other host, and puts them back', async () => {
    const [host] = hosts;
    const [own, peer] = [await subnetOf(hosts[0]), await subnetOf(hosts[1])];
    const before = await policies(host);
    const tunnels = before.filter((line) => line.includes('proto esp reqid 11 mode tunnel'));
    assert.deepEqual(
      tunnels.map((line) => /^src \S+ dst \S+ dir \S+/.exec(line)?.[0]),
      [
        `src ${own}.0/24 dst ${peer}.0/24 dir out`,
        `src ${peer}.0/24 dst ${own}.0/24 dir fwd`,
        `src ${peer}.0/24 dst ${own}.0/24 dir in`,
      ].sort(),
    );
    const words = ['src', `${own}.0/24`, 'dst', `${peer}.0/24`, 'dir', 'out'];
    await topology.exec(host, ['ip', 'xfrm', 'policy', 'delete', ...words]);
    await topology.exec(host, [
      'ip',
      'xfrm',
      'policy',
      'update',
      ...words.with(-1, 'out').with(3, '10.244.250.0/24'),
      'priority',
      '2410',
    ]);
    await eventuallyHolds(async () => assert.deepEqual(await policies(host), before));
    await agents[0].logged(/^Restored what another program changed on this host: set IPsec policy out/);
  });

  it('starts a charon that was killed again, and tells it all', async () => {
    const [pid = ''] = await charons(hosts[0]);
    await topology.exec(hosts[0], ['kill', '-9', pid]);
    await eventually('there is another charon', async () => {
      const now = await charons(hosts[0]);
      return now.length === 1 && now[0] !== pid ? now : undefined;
    });
    await agreed();
    await agents[0].answers('/readyz', 200, /.*/);
  });

  it('shows its key in no log, in nothing that the agent answers, and in no bug report', async () => {
    const [host] = hosts;
    const report = join(host.stateDirectory, 'report.tar.gz');
    const socket = apiSocketPath(join(host.stateDirectory, 'subnet.env'));
    await topology.exec(host, [process.execPath, WEFT, 'bugreport', '--socket', socket, '--output', report]);
    const texts = {
      report: gunzipSync(await readFile(report)).toString('latin1'),
      metrics: (await agents[0].get('/metrics')).body,
      log: agents.flatMap(({ messages }) => messages).join('\n'),
    };
    for (const [where, text] of Object.entries(texts)) assert(!text.includes(PSK.slice(0, 24)), where);
    assert.match(texts.report, /xfrm-policies[\s\S]*xfrm-states/);
    assert.match(texts.log, /charon: .*initiating IKE_SA/);
  });

  it('ends charon with the agent, also one that is killed, and keeps what blocks packets in clear', async () => {
    const [host] = hosts;
    const before = await policies(host);
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      agents[0].child.kill(signal);
      await agents[0].child.exited;
      await eventually('there is no charon', async () => ((await charons(host)).length === 0 ? true : undefined));
      assert.deepEqual(await policies(host), before);
      agents[0] = await startAgent(host);
      await agents[0].answers('/readyz', 200, /.*/);
      await agreed();
    }
  });

  it('leaves nothing after weft cleanup', async () => {
    const [host] = hosts;
    await agents[0][Symbol.asyncDispose]();
    const paths = ['--subnet-file', join(host.stateDirectory, 'subnet.env'), '--cni-conf-dir', host.stateDirectory];
    const { stdout } = await topology.exec(host, [process.execPath, WEFT, 'cleanup', ...paths]);
    assert.match(stdout, /removed IPsec policies:\n(?: {2}.*\n)* {2}fwd 10\.244.*tunnel/);
    assert.deepEqual(await policies(host), []);
  });

  it('says what to install where there is no charon, and what needs none', async () => {
    const { code, stderr } = await (await startAgent(hosts[0], NO_CHARON)).ended();
    assert.equal(code, 1);
    assert.match(
      stderr,
      /No valid charon executable found at paths \[.*\/usr\/lib\/ipsec\/charon.*WEFT_CHARON_MISSING/,
    );
    assert.match(stderr, /apt-get install strongswan-charon.*wireguard/);
    assert(!stderr.includes(PSK.slice(0, 24)));
  });
});
