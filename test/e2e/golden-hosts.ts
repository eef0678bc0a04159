import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { parseContainerNetwork } from '../../src/lab/agent.ts';
import { SWITCH_BRIDGE } from '../../src/lab/namespaces.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { start } from '../../src/linux/run.ts';
import { byTable, golden, goldenOrEmpty, normalRuleset, normalSave, withNftCorrections } from '../fakes/golden.ts';
import { goldenHostState, type HostState, hostState, type RecordedHostState, SYSCTLS } from '../fakes/host-state.ts';
import { Flanneld, HEALTHZ_PORT, subnetFileOf } from '../netns/flanneld.ts';
import { eventually } from '../netns/waiting.ts';

/** Where the golden files were written: hosts 10.98.0.11 and up, and the servers at 10.98.0.1. */
export const SERVER_ADDRESS = '10.98.0.1';

export function hostAddress(host: LabHost): string {
  return `10.98.0.${11 + host.index}`;
}

/** Hosts with the addresses of the golden hosts, each with one container that is not attached yet. */
export async function goldenTopology(hosts: number): Promise<Topology> {
  const topology = await Topology.create({ hosts, containersPerHost: 1, purpose: 'test' });
  try {
    await topology.ipBatch(
      topology.plan.switchNamespace,
      `addr add ${SERVER_ADDRESS}/24 dev ${SWITCH_BRIDGE}\naddr add fd98::1/64 dev ${SWITCH_BRIDGE} nodad\n`,
    );
    for (const host of topology.hosts) {
      const number = 11 + host.index;
      const script = [
        'link set eth0 down',
        'addr flush dev eth0',
        `link set eth0 address 02:00:0a:62:00:${number}`,
        'link set eth0 up',
        `addr add 10.98.0.${number}/24 dev eth0`,
        `addr add fd98::${number}/64 dev eth0 nodad`,
        `route add default via ${SERVER_ADDRESS}`,
        'route add ::/0 via fd98::1',
      ];
      await topology.ipBatch(host, `${script.join('\n')}\n`);
      await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']);
    }
    return topology;
  } catch (error) {
    await topology[Symbol.asyncDispose]();
    throw error;
  }
}

export function netConfFileOf(host: LabHost): string {
  return join(host.stateDirectory, 'net-conf.json');
}

/** The agent as flanneld was started when the golden files were written. */
export async function launchGolden(
  topology: Topology,
  host: LabHost,
  flags: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Flanneld> {
  mkdirSync(host.stateDirectory, { recursive: true });
  const own = ['--ip-masq', `--healthz-port=${HEALTHZ_PORT}`, `--subnet-file=${subnetFileOf(host)}`];
  return Flanneld.start(topology, host, { flags: [...flags, ...own], env });
}

export async function untilReady(agent: Flanneld): Promise<Flanneld> {
  await agent.logged(/^flannel is ready$/, 0, 60_000);
  return agent;
}

/** cni0 and the container behind it, from what the agent wrote. */
export async function attachFrom(topology: Topology, host: LabHost, subnetEnv: string): Promise<void> {
  await topology.attachContainers(host, parseContainerNetwork(subnetEnv, subnetFileOf(host)));
}

export function writeNetConf(host: LabHost, text: string): void {
  mkdirSync(host.stateDirectory, { recursive: true });
  writeFileSync(netConfFileOf(host), text);
}

export async function readHostState(topology: Topology, host: LabHost): Promise<HostState> {
  const show = async (...argv: string[]) => (await topology.exec(host, argv, { okExitCodes: 'any' })).stdout;
  const [addresses, routes, rules, sysctls] = await Promise.all([
    show('ip', '-d', 'addr'),
    show('ip', 'route', 'show', 'table', 'all'),
    show('ip', 'rule'),
    show('sysctl', ...SYSCTLS),
  ]);
  return hostState({ addresses, routes, rules, sysctls });
}

/**
 * A port of {@link SERVER_ADDRESS} behind which a server of this process's namespace answers: two namespaces share files, so
 * a UNIX socket leads from one to the other.
 */
export async function serveToHosts(topology: Topology, port: number, target: string): Promise<AsyncDisposable> {
  const socket = join(topology.stateDirectory, `relay-${port}.sock`);
  const outside = await start(['socat', `UNIX-LISTEN:${socket},fork`, `TCP4:${target}`], { stdout: 'ignore' });
  await topology.start(
    topology.plan.switchNamespace,
    ['socat', `TCP4-LISTEN:${port},bind=${SERVER_ADDRESS},fork,reuseaddr`, `UNIX-CONNECT:${socket}`],
    { stdout: 'ignore' },
  );
  return outside;
}

/** What a real flanneld left, but for what docs/COMPATIBILITY.md gives a reason for: each line, and ours in its place. */
const DIFFERENCES: readonly { readonly flannel: string; readonly weft: string; readonly row: string }[] = [
  {
    flannel: 'tun type tun pi off vnet_hdr off persist off',
    weft: 'tun type tun pi off vnet_hdr on persist on user root',
    row: 'The TUN device disappears when flanneld exits',
  },
  { flannel: 'qlen 500', weft: 'qlen 2000', row: 'The queue of flannel0 holds 500 packets' },
  {
    flannel: 'inet SUBNET/32 scope global flannel0',
    weft: 'inet SUBNET/32 scope global noprefixroute flannel0',
    row: 'Address: base of the subnet as /32',
  },
  {
    flannel: '10.244.0.0/16 dev flannel0',
    weft: '10.244.0.0/16 dev flannel0 proto 241 metric 100',
    row: 'One route for the whole network',
  },
];

/** The same for settings of the kernel, which not every recording has. */
const SYSCTL_DIFFERENCE = {
  flannel: 'net.ipv6.conf.flannel0.accept_ra = 1',
  weft: 'net.ipv6.conf.flannel0.accept_ra = 0',
  row: 'Router advertisements on flannel0 are accepted',
};

/** The recorded state of a host, as weft is expected to have it. */
export function expectedHostState(scenario: string, host: LabHost, subnetBase: string): RecordedHostState {
  const state = goldenHostState(golden(scenario, `20-net-${host.name}`));
  const table = readFileSync(new URL('../../docs/COMPATIBILITY.md', import.meta.url), 'utf8');
  const used = new Set<string>();
  const ours = (line: string): string => {
    const difference = DIFFERENCES.find(({ flannel }) => flannel.replace('SUBNET', subnetBase) === line);
    if (difference === undefined) return line;
    assert.ok(table.includes(`| ${difference.row}`), `docs/COMPATIBILITY.md has the row "${difference.row}"`);
    used.add(difference.row);
    return difference.weft.replace('SUBNET', subnetBase);
  };
  const { flannel, weft, row } = SYSCTL_DIFFERENCE;
  assert.ok(table.includes(`| ${row}`), `docs/COMPATIBILITY.md has the row "${row}"`);
  const { sysctls } = state;
  if (sysctls !== undefined) assert.ok(sysctls.includes(flannel), flannel);
  const expected = {
    ...state,
    ...(sysctls === undefined ? {} : { sysctls: sysctls.map((line) => (line === flannel ? weft : line)) }),
    flannel0: state.flannel0?.map(ours),
    routes: state.routes.map(ours).sort(),
  };
  assert.equal(used.size, DIFFERENCES.length, 'each difference is one to the recorded host');
  return expected;
}

/** Everything on one host against the recording: addresses, routes, rules of both families, subnet.env, listeners. */
export async function assertLikeGolden(
  topology: Topology,
  host: LabHost,
  scenario: string,
  subnetBase: string,
): Promise<void> {
  const expected = expectedHostState(scenario, host, subnetBase);
  const shown = async (...argv: string[]): Promise<string> => (await topology.exec(host, argv)).stdout;
  await eventually(`the addresses and routes of ${host.name} as recorded`, async () => {
    // IPv6 addresses are tentative, and so without routes, for a second or two after a device came up.
    const actual = await readHostState(topology, host);
    return isDeepStrictEqual(pick(actual, expected), expected) || undefined;
  }).catch(async () => assert.deepEqual(pick(await readHostState(topology, host), expected), expected));

  const file = (name: string): string => golden(scenario, `${name}-${host.name}`);
  assert.equal(readFileSync(subnetFileOf(host), 'utf8'), file('24-subnet.env'));
  const files = goldenOrEmpty(scenario, `25-files-${host.name}`);
  if (files !== '') {
    const { mode, uid } = statSync(subnetFileOf(host));
    assert.ok(files.startsWith(`${(mode & 0o7777).toString(8)} root `) && uid === 0, files);
  }
  const saved = await shown('iptables-save');
  const saved6 = await shown('ip6tables-save');
  assert.deepEqual(withRules(saved), withRules(file('21-iptables-save')));
  assert.deepEqual(withRules(saved6), withRules(goldenOrEmpty(scenario, `22-ip6tables-save-${host.name}`)));
  const ruleset = normalRuleset(file('23-nft'));
  const isNative = ruleset.some((line) => line.startsWith('table ip flannel-ipv4'));
  const wanted = isNative ? withNftCorrections(ruleset, `${subnetBase}/24`) : ruleset;
  const listed = normalRuleset(await shown('nft', '-a', 'list', 'ruleset'));
  assert.deepEqual(withoutEmpty(byTable(listed)), withoutEmpty(byTable(wanted)));

  const listeners = goldenOrEmpty(scenario, `28-listen-${host.name}`);
  if (listeners !== '') assert.deepEqual(sockets(await shown('ss', '-lnut')), sockets(listeners));
}

function pick(state: HostState, like: RecordedHostState): Partial<HostState> {
  return Object.fromEntries(Object.entries(state).filter(([key]) => key in like));
}

/** Tables of `iptables-save` in which there is a rule: an empty one is only a sign that somebody has looked. */
function withRules(text: string): Record<string, string[]> {
  const tables = Object.entries(byTable(normalSave(text)));
  return Object.fromEntries(tables.filter(([, lines]) => lines.some((line) => line.startsWith('-A'))));
}

/** Without tables that iptables has made only to look into them: chains of hooks, all empty. */
function withoutEmpty(tables: Record<string, string[]>): Record<string, string[]> {
  return Object.fromEntries(
    Object.entries(tables).filter(([, lines]) => lines.some((line) => !/^(table|chain|type|})/.test(line))),
  );
}

/** Protocol and local address of each listening socket. */
function sockets(text: string): string[] {
  const rows = text.split('\n').map((line) => line.trim().split(/\s+/));
  return rows
    .filter(([protocol]) => protocol === 'udp' || protocol === 'tcp')
    .map((row) => `${row[0]} ${row[4]}`)
    .sort();
}
