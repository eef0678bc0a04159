import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { AgentEvent } from '../../src/events/event.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { Agent } from '../../src/lab/agent.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually } from './waiting.ts';

const WEFT = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url)),
];
const NETWORK = '10.244.0.0/16';
/** Secrets that the agents are given. */
const TOKEN = 'canary-token-0123456789';
const ETCD_PASSWORD = 'canary-etcd-0123456789';
const PSK = 'canary-psk-0123456789';
/** No key of udp, which an agent ignores, and keeps as it does any other. */
const NET_CONF = `{"Network": "${NETWORK}", "Backend": {"Type": "udp", "PSK": "${PSK}"}}`;
const PORT = 8287;
/** A user that is neither root nor the agent's. */
const STRANGER = '65534';

interface Ran {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

interface StatusJson {
  readonly healthy: boolean;
  readonly problems: readonly { readonly severity: string; readonly text: string; readonly remedy: string }[];
  readonly self: {
    readonly ready: boolean;
    readonly backendType: string;
    readonly lease: { readonly subnets: string[] };
  };
  readonly peers: readonly { readonly id: string; readonly path: string; readonly tx: { readonly packets: number } }[];
}

describe('what an agent says of itself', () => {
  let overlay: Overlay;
  let host: LabHost;
  const signal = new AbortController().signal;
  const directory = mkdtempSync(join(tmpdir(), 'weft-status-'));
  const tokenFile = join(directory, 'token');
  const socketOf = ({ stateDirectory }: LabHost): string => join(stateDirectory, 'weft.sock');

  before(async () => {
    overlay = await Overlay.create(
      {
        hosts: 2,
        containersPerHost: 1,
        netConf: NET_CONF,
        agentFlags: [
          ...['--iptables-resync', '1', '--api-listen', `:${PORT}`, '--api-token-file', tokenFile, '-v=6'],
          ...['--etcd-username', 'root', '--etcd-password', ETCD_PASSWORD],
        ],
      },
      signal,
    );
    host = overlay.topology.hosts[0]!;
  });
  after(async () => {
    await overlay?.[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });

  const weft = (args: readonly string[], on: LabHost = host, under: readonly string[] = []): Promise<Ran> =>
    overlay.topology.exec(on, [...under, ...WEFT, ...args], { okExitCodes: 'any' });
  const here = (verb: string, ...args: readonly string[]): Promise<Ran> =>
    weft([verb, '--socket', socketOf(host), ...args]);
  const status = async (): Promise<StatusJson & { readonly exitCode: number }> => {
    const { stdout, exitCode } = await here('status', '--json');
    return { ...(JSON.parse(stdout) as StatusJson), exitCode };
  };

  it('is healthy, in one screen and in tables of 80 columns', async () => {
    const ran = await here('status', '--wait=60');
    assert.equal(ran.exitCode, 0, ran.stdout + ran.stderr);
    assert.match(ran.stdout, /^Agent +ready on /m);
    assert.match(ran.stdout, /^Backend +udp in 10\.244\.0\.0\/16$/m);
    assert.match(ran.stdout, /^Peers +1: 1 forwarder$/m);
    assert.ok(ran.stdout.split('\n').length <= 24);
    const [a, b] = overlay.topology.hosts.map(({ containers }) => containers[0]!);
    await eventually('a packet passes', async () =>
      (await ping(overlay.topology, a!, addressOf(b!))).ok ? true : undefined,
    );
    const { healthy, self, peers, problems } = await eventually('the packet is counted', async () => {
      const now = await status();
      return now.peers[0]!.tx.packets > 0 ? now : undefined;
    });
    assert.deepEqual([healthy, self.ready, self.backendType, problems], [true, true, 'udp', []]);
    for (const verb of ['peers', 'leases', 'events']) {
      const { stdout, exitCode } = await here(verb);
      assert.equal(exitCode, 0);
      for (const line of stdout.split('\n')) assert.ok(line.length <= 80, `${verb}: ${line}`);
    }
    assert.match((await here('peers')).stdout, new RegExp(`^${peers[0]!.id.replaceAll('.', '\\.')} .*forwarder`, 'm'));
    assert.match(
      (await here('leases')).stdout,
      new RegExp(`^${self.lease.subnets[0]!.replaceAll('.', '\\.')} .* own `, 'm'),
    );
    assert.match((await here('events')).stdout, /lease-acquired/);
    const top = await here('top', '--once');
    assert.match(top.stdout, /CPU \d+\.\d%[\s\S]*SUBNET +HOST +PATH/);
    assert.equal((JSON.parse((await here('peers', '--json')).stdout) as { total: number }).total, 1);
    assert.doesNotMatch(top.stdout, /\p{Cc}(?<!\n)/u, 'plain where there is no terminal');
  });

  it('answers by its socket root alone, and nobody else even where the mode lets them in', async () => {
    const socket = socketOf(host);
    assert.equal(statSync(socket).mode & 0o777, 0o600);
    const curl = ['socat', '-t', '5', 'STDIO', `UNIX-CONNECT:${socket}`];
    const asStranger = ['setpriv', `--reuid=${STRANGER}`, `--regid=${STRANGER}`, '--clear-groups'];
    const ask = (under: readonly string[]): Promise<Ran> =>
      overlay.topology.exec(host, [...under, ...curl], {
        okExitCodes: 'any',
        stdin: 'GET /api/v1/self HTTP/1.0\r\nHost: x\r\n\r\n',
      });
    assert.match((await ask([])).stdout, /^HTTP\/1\.1 200 /);
    assert.notEqual((await ask(asStranger)).exitCode, 0);
    // Whoever has changed the mode of the socket, and of what is above it.
    chmodSync(socket, 0o666);
    for (let at = host.stateDirectory; at !== '/' && at !== '/tmp'; at = join(at, '..'))
      chmodSync(at, statSync(at).mode | 0o011);
    try {
      const refused = await ask(asStranger);
      assert.match(refused.stdout, /^HTTP\/1\.1 403 /, refused.stderr);
      assert.match(refused.stdout, /user 65534 asks/);
    } finally {
      chmodSync(socket, 0o600);
    }
  });

  it('says what was changed behind its back, and that it was put back', async () => {
    await overlay.topology.ipBatch(host, `route del ${NETWORK}\n`);
    const { problems, exitCode } = await eventually('the repair is told', async () => {
      const found = await status();
      return found.problems.some(({ text }) => text.includes(`restored: add route ${NETWORK}`)) ? found : undefined;
    });
    assert.equal(exitCode, 0, 'what was put right is no fault');
    assert.deepEqual([...new Set(problems.map(({ severity }) => severity))], ['warning']);
    assert.match(
      (await here('events')).stdout.replaceAll(/\s+/g, ' '),
      /kernel-repaired .*because another program has changed it/,
    );
    const told = (await here('events', '--all', '--json')).stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as AgentEvent);
    const operationsOf = (kind: AgentEvent['kind']) =>
      told
        .filter((event) => event.kind === kind)
        .flatMap(({ operations = [] }) => operations.map((one) => one.split(' dev ')[0]));
    assert.ok(operationsOf('kernel-changed').includes(`add route ${NETWORK}`), 'what the start did');
    assert.ok(operationsOf('kernel-repaired').includes(`add route ${NETWORK}`), 'what was put back');
  });

  it('is not healthy while its external interface is down, and says what to do', async () => {
    await overlay.topology.ipBatch(host, 'link set eth0 down\n');
    const down = await eventually('it is not healthy', async () => {
      const found = await status();
      return found.healthy ? undefined : found;
    });
    assert.equal(down.exitCode, 1);
    const [problem] = down.problems;
    assert.match(problem!.text, /eth0/);
    assert.ok(problem!.remedy.length > 20);
    const waited = await here('status', '--wait=1');
    assert.equal(waited.exitCode, 1);
    assert.match(waited.stdout, /^✖ the external interface eth0 is down$/m);
    assert.match(waited.stdout, /^ {2}→ /m);
    await overlay.topology.ipBatch(host, 'link set eth0 up\n');
    assert.equal((await here('status', '--wait=60')).exitCode, 0);
  });

  it('is asked from elsewhere with a token, and by nobody without', async () => {
    const other = overlay.topology.hosts[1]!;
    const own = join(directory, 'own');
    writeFileSync(own, TOKEN);
    const ask = async (): Promise<Ran> => {
      const url = `http://${formatIpv4(host.address)}:${PORT}`;
      const ran = await weft(['status', '--host', url, '--token-file', own], other);
      return { ...ran, stdout: ran.stdout.replaceAll(/\s+/g, ' ') };
    };
    const closed = await ask();
    assert.equal(closed.exitCode, 3);
    assert.match(closed.stdout, /rejects all clients: cannot read the token.*\[WEFT_API_REFUSED\]/);
    writeFileSync(tokenFile, `${TOKEN}-other`);
    assert.match((await ask()).stdout, /the token is wrong/);
    writeFileSync(tokenFile, TOKEN);
    let open = await ask();
    // What was lost while its interface was down counts for half a minute.
    await eventually('it is let in, and healthy again', async () => {
      open = await ask();
      return open.exitCode === 0 || undefined;
    }).catch(() => assert.fail(open.stdout));
    assert.match(open.stdout, /^Agent ready on /);
    assert.doesNotMatch(await overlay.log(host), new RegExp(TOKEN));
  });

  it('writes all that a maintainer asks for into one archive, without secrets', async () => {
    const archive = join(directory, 'report.tar.gz');
    const log = join(directory, 'agent.log');
    const canaries = ['canary-pass-1', 'canary-token-2', `${'canary3'.repeat(6)}A=`, 'canary-bearer-4', 'canary-url-5'];
    writeFileSync(
      log,
      `etcdPassword: ${canaries[0]}\n"token": "${canaries[1]}"\nkey ${canaries[2]}\nAuthorization: Bearer ${canaries[3]}\nhttps://root:${canaries[4]}@etcd:2379\nkept line\n`,
    );
    const ran = await here('bugreport', '-o', archive, '--log', log);
    assert.deepEqual([ran.exitCode, ran.stdout], [0, `${archive}\n`], ran.stderr);
    assert.equal(statSync(archive).mode & 0o777, 0o600);
    const { stdout: names } = await overlay.topology.exec(host, ['tar', 'tzf', archive]);
    for (const name of [
      'status.txt',
      'doctor.json',
      'agent.log',
      'api/state.json',
      'api/config.json',
      'host/routes.txt',
    ]) {
      assert.match(names, new RegExp(`^weft-bugreport-[^/]+/${name}$`, 'm'));
    }
    const { stdout: texts } = await overlay.topology.exec(host, ['tar', 'xzOf', archive]);
    for (const canary of canaries) assert.ok(!texts.includes(canary), canary);
    for (const there of [
      'kept line',
      '10.244.0.0/16 dev flannel0',
      'FLANNEL_NETWORK=',
      'lease-acquired',
      '"name": "last-start"',
    ]) {
      assert.ok(texts.includes(there), there);
    }
    const again = await here('bugreport', '-o', archive, '--log', log);
    assert.match(again.stderr, /EEXIST.*\[WEFT_OUTPUT_UNWRITABLE\]/, 'nothing is overwritten');
  });

  it('leaves the secrets of the agent out of that archive: the password of etcd, keys of net-conf.json, the token of its API', async () => {
    const archive = join(directory, 'agent.tar.gz');
    const [{ logPath }] = overlay.agents as [Agent];
    const ran = await here('bugreport', '-o', archive, '--log', logPath);
    assert.equal(ran.exitCode, 0, ran.stderr);
    const { stdout: texts } = await overlay.topology.exec(host, ['tar', 'xzOf', archive]);
    // Where they would be.
    for (const there of ['CLI flags config', 'etcdPassword', '"PSK": "[', '"subnetMgr": "local"'])
      assert.ok(texts.includes(there), there);
    for (const secret of [TOKEN, ETCD_PASSWORD, PSK]) assert.ok(!texts.includes(secret), secret);
  });

  it('says when it is not there, and why its last start failed', async () => {
    const [agent] = overlay.agents;
    await agent!.child[Symbol.asyncDispose]();
    writeFileSync(join(host.stateDirectory, 'last-error'), 'no interface has that name\n');
    const { stdout, exitCode } = await here('status');
    assert.equal(exitCode, 3);
    assert.match(
      stdout.replaceAll(/\s+/g, ' '),
      /cannot reach the agent at .*weft\.sock: nothing listens there \[WEFT_API_U/,
    );
    assert.match(stdout.replaceAll(/\s+/g, ' '), /The last start failed at .*: no interface has that name/);
    const json = JSON.parse((await here('status', '--json')).stdout) as { healthy: boolean; lastStart: string };
    assert.deepEqual([json.healthy, /no interface/.test(json.lastStart)], [false, true]);
    assert.equal((await here('peers')).exitCode, 1);
  });
});
