import { assertNever } from '../assert-never.ts';
import type { Kernel, OpResult } from '../desired/kernel.ts';
import type { LinkKind } from '../desired/link-kinds/link-kind.ts';
import { linkKind, readLinkKind } from '../desired/link-kinds/table.ts';
import type { Op } from '../desired/op.ts';
import { neighbourLinks } from '../desired/plan/links.ts';
import {
  type ActualAddress,
  type ActualLink,
  type ActualRoute,
  type ActualState,
  type ActualSysctl,
  type Address,
  type AddressScope,
  type FdbEntry,
  type LinkSysctl,
  type Neighbour,
  type OwnLinkKind,
  type OwnWantedLink,
  type Route,
  type WantedState,
  WEFT_ROUTE_PROTOCOL,
} from '../desired/state.ts';
import { describeError, WeftError } from '../errors.ts';
import { formatAddr, formatPrefix, type IpAddr, type IpPrefix, parseAddr, parsePrefix } from '../ip/address.ts';
import { parseMac } from '../ip/mac.ts';
import { readDeviceFacts, turnFeatureOff } from './ethtool.ts';
import { errnoName } from './ffi.ts';
import { policyCommandOf, readIpsecPolicies } from './ipsec-policies.ts';
import { concerns, IpMonitor, type IpMonitorOptions, linkIndex } from './link-monitor.ts';
import { OwnEchoes } from './own-echoes.ts';
import { type RunResult, run } from './run.ts';
import { isSysctlWritable, readSysctl, setSysctl } from './sysctl.ts';
import { applyWireguard, readWireguard } from './wireguard.ts';

export type Iproute2Options = Omit<IpMonitorOptions, 'about'>;

/** A dump of a large table takes a second or two; longer than this means that something hangs. */
const TIMEOUT_MS = 30_000;

const SUM_FEATURE = 'tx-checksum-ip-generic';

/** rtnetlink.h: RTN_UNICAST, RTN_BLACKHOLE. */
const ROUTE_TYPES: Readonly<Record<string, ActualRoute['type']>> = { '1': 'unicast', '6': 'blackhole' };
/** rtnetlink.h: RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST. */
const SCOPES: Readonly<Record<string, AddressScope>> = { '0': 'global', '253': 'link', '254': 'host' };

/**
 * The kernel's network state through iproute2. Everything is read in two or three processes, whatever the number of
 * links, and applied in one per kind of tool: 2,000 routes are one `ip -batch`.
 *
 * Numbers are read as numbers (`-N`), because names of protocols and scopes come from files that anybody may edit.
 */
export function iproute2Kernel(options: Iproute2Options): Kernel {
  return new Iproute2Kernel(options);
}

class Iproute2Kernel implements Kernel {
  readonly #netns: string | undefined;
  readonly #monitor: IpMonitor;
  /** Names of the own links by index, as last found: one that is renamed keeps nothing else for certain. */
  readonly #ownNames = new Map<number, string>();
  readonly #policyMonitor: IpMonitor;
  /** Since policies are wanted. */
  #arePoliciesWatched = false;
  /** What begins to watch them, for each changes() that does not yet. */
  readonly #policyWatches = new Set<() => void>();
  /** One for each that changes() has given its first notice: what is done before that would be expected in vain. */
  readonly #listeners = new Set<OwnEchoes>();

  constructor(options: Iproute2Options) {
    this.#netns = options.netns;
    this.#monitor = new IpMonitor(options);
    this.#policyMonitor = new IpMonitor({ ...options, about: 'ipsec-policies' });
  }

  async read(wanted: WantedState, signal: AbortSignal): Promise<ActualState> {
    const names = [...new Set([...wanted.links, ...(wanted.absentLinks ?? [])].map((link) => link.name))];
    const held = [...neighbourLinks(wanted.links)];
    const [main, ipv6Routes, fdb, sysctls] = await Promise.all([
      this.#query('ip', [], signal, [
        'route show table main',
        ...names.map((name) => `addr show dev ${name}`),
        ...held.map((name) => `neigh show dev ${name} nud permanent`),
      ]),
      this.#query('ip', ['-6'], signal, ['route show table main']),
      held.length === 0
        ? []
        : this.#query(
            'bridge',
            [],
            signal,
            held.map((name) => `fdb show dev ${name}`),
          ),
      this.#readSysctls(wanted.sysctls, signal),
    ]);
    const links: ActualLink[] = [];
    const addresses: ActualAddress[] = [];
    const summed = new Set(wanted.links.flatMap((link) => ('sumsBefore' in link && link.sumsBefore ? link.name : [])));
    for (const answer of main.slice(1, 1 + names.length)) {
      for (const item of answer) {
        if (typeof item.ifname !== 'string') continue;
        const link = linkOf(item);
        this.#remember(Number(item.ifindex), link, wanted);
        const sums = summed.has(link.name) ? { sumsBefore: !(await this.#deviceSums(link.name, signal)) } : {};
        links.push({ ...link, ...sums });
        addresses.push(...addressesOf(item));
      }
    }
    const read = new Set(links.map(({ name }) => name));
    for (const item of await this.#readAll(kindsOfMissing(wanted, links), signal)) {
      const link = linkOf(item);
      if (read.has(link.name)) continue;
      const wasOwn = this.#ownNames.get(Number(item.ifindex));
      links.push({ ...link, ...(wasOwn === undefined ? {} : { wasOwn }) });
      addresses.push(...addressesOf(item));
    }
    const neighbours = held.flatMap((link, i) => (main[1 + names.length + i] ?? []).flatMap(neighbourOf(link)));
    const entries = held.flatMap((link, i) => (fdb[i] ?? []).flatMap(fdbEntryOf(link)));
    const routes = [...(main[0] ?? []).flatMap(routeOf(4)), ...(ipv6Routes[0] ?? []).flatMap(routeOf(6))];
    const tunnels = links.filter(({ kind }) => kind === 'wireguard').map(({ name }) => name);
    const wireguard = await readWireguard(tunnels, { netns: this.#netns, signal });
    const areWanted = (wanted.policies ?? []).length > 0;
    if (areWanted) this.#watchPolicies();
    const policies = await readIpsecPolicies({ netns: this.#netns, areWanted, signal });
    return { links, addresses, routes, neighbours, fdb: entries, sysctls, wireguard, policies };
  }

  /** The kernel gives an index to one link only, as long as nobody asks for it. */
  #remember(index: number, found: ActualLink, { links }: WantedState): void {
    if (!links.some((link) => link.kind !== 'external' && isAsWanted(found, link))) return;
    for (const [earlier, name] of this.#ownNames) if (name === found.name) this.#ownNames.delete(earlier);
    this.#ownNames.set(index, found.name);
  }

  /** The links of these kinds, whatever their names. */
  async #readAll(kinds: readonly OwnLinkKind[], signal: AbortSignal): Promise<JsonObject[]> {
    if (kinds.length === 0) return [];
    const commands = kinds.map((kind) => `addr show type ${kind}`);
    const answers = await this.#query('ip', [], signal, commands);
    return answers.flat().filter((item) => typeof item.ifname === 'string');
  }

  async apply(ops: readonly Op[], signal: AbortSignal): Promise<OpResult[]> {
    if (ops.some(({ type }) => type === 'policy-set')) this.#watchPolicies();
    const listeners = [...this.#listeners];
    for (const echoes of listeners) for (const op of ops) echoes.expect(op);
    try {
      return await this.#applyAll(ops, signal);
    } finally {
      for (const echoes of listeners) echoes.done();
    }
  }

  async #applyAll(ops: readonly Op[], signal: AbortSignal): Promise<OpResult[]> {
    const results: OpResult[] = [];
    for (let from = 0; from < ops.length; ) {
      const tool = toolOf(ops[from]!);
      let to = from + 1;
      while (to < ops.length && tool !== 'ip link add' && toolOf(ops[to]!) === tool) to++;
      const some = ops.slice(from, to);
      if (tool === 'sysctl') results.push(...(await this.#setSysctls(some, signal)));
      else if (tool === 'ethtool') results.push(...(await this.#sumBefore(some, signal)));
      else if (tool === 'wg') results.push(...(await applyWireguard(some, { netns: this.#netns, signal })));
      else results.push(...(await this.#batch(tool, some, signal)));
      from = to;
    }
    return results;
  }

  async *changes(wanted: () => WantedState, signal: AbortSignal): AsyncIterable<void> {
    const echoes = new OwnEchoes(() => this.#monitor.nudge());
    const matters = (line: string): boolean =>
      !echoes.take(line) && (concerns(line, wanted()) || this.#ownNames.has(linkIndex(line)));
    const ended = new AbortController();
    const watchPolicies = (): void => void this.#nudgeByPolicies(AbortSignal.any([signal, ended.signal]));
    if ((wanted().policies ?? []).length > 0) this.#watchPolicies();
    if (this.#arePoliciesWatched) watchPolicies();
    else this.#policyWatches.add(watchPolicies);
    try {
      for await (const _ of this.#monitor.changes(matters, signal)) {
        this.#listeners.add(echoes);
        yield;
      }
    } finally {
      this.#listeners.delete(echoes);
      this.#policyWatches.delete(watchPolicies);
      ended.abort();
    }
  }

  /** From now on changes() gives notice of IPsec policies: most hosts never want any, and have no use for one more monitor. */
  #watchPolicies(): void {
    this.#arePoliciesWatched = true;
    for (const watch of this.#policyWatches) watch();
    this.#policyWatches.clear();
  }

  /** Never rejects. */
  async #nudgeByPolicies(signal: AbortSignal): Promise<void> {
    for await (const _ of this.#policyMonitor.changes(() => true, signal)) this.#monitor.nudge();
  }

  async #readSysctls(wanted: readonly LinkSysctl[], signal: AbortSignal): Promise<ActualSysctl[]> {
    const found: ActualSysctl[] = [];
    for (const { name } of wanted) {
      const value = await this.#readSysctl(name, signal);
      if (value !== undefined) {
        const writable = this.#netns !== undefined || (await isSysctlWritable(name));
        found.push({ name, value, writable });
      }
    }
    return found;
  }

  /** /proc/sys shows the namespace of whoever opens the file, so that another one's takes a process there. */
  async #readSysctl(name: string, signal: AbortSignal): Promise<string | undefined> {
    if (this.#netns === undefined) return await readSysctl(name);
    const argv = ['cat', `/proc/sys/${name}`];
    const { stdout, exitCode } = await run(argv, { netns: this.#netns, okExitCodes: 'any', signal });
    return exitCode === 0 ? stdout.trimEnd() : undefined;
  }

  async #setSysctls(ops: readonly Op[], signal: AbortSignal): Promise<OpResult[]> {
    const results: OpResult[] = [];
    for (const op of ops) {
      if (op.type !== 'sysctl-set') throw new TypeError(`unreachable: ${op.type} is no setting`);
      const { name, value } = op.sysctl;
      try {
        if (this.#netns !== undefined) {
          await run(['tee', `/proc/sys/${name}`], { netns: this.#netns, stdin: `${value}\n`, signal });
        } else if (await isSysctlWritable(name)) await setSysctl(name, value);
        // Else there is nothing to set, or it cannot be set: the next look at the kernel says which.
        results.push({ op, ok: true });
      } catch (error) {
        signal.throwIfAborted();
        results.push({ op, ok: false, error: describeError(error) });
      }
    }
    return results;
  }

  /** Whether the device says that it computes checksums; as with settings, another namespace's takes a process there. */
  async #deviceSums(link: string, signal: AbortSignal): Promise<boolean> {
    if (this.#netns === undefined) {
      const facts = readDeviceFacts(link);
      return typeof facts !== 'number' && facts.features.has(SUM_FEATURE);
    }
    const { stdout } = await run(['ethtool', '-k', link], { netns: this.#netns, okExitCodes: 'any', signal });
    return new RegExp(`^\\s*${SUM_FEATURE}: on`, 'm').test(stdout);
  }

  async #sumBefore(ops: readonly Op[], signal: AbortSignal): Promise<OpResult[]> {
    const results: OpResult[] = [];
    for (const op of ops) {
      if (op.type !== 'link-sum-before') throw new TypeError(`unreachable: ${op.type} is no matter of ethtool`);
      let error: string | undefined;
      if (this.#netns === undefined) {
        const result = turnFeatureOff(op.name, SUM_FEATURE);
        if (result < 0) error = errnoName(result);
      } else {
        const argv = ['ethtool', '-K', op.name, SUM_FEATURE, 'off'];
        const { exitCode, stderr } = await run(argv, { netns: this.#netns, okExitCodes: 'any', signal });
        if (exitCode !== 0) error = stderr.trim();
      }
      results.push(error === undefined ? { op, ok: true } : { op, ok: false, error });
    }
    return results;
  }

  async #batch(
    tool: Exclude<Tool, 'sysctl' | 'wg' | 'ethtool'>,
    ops: readonly Op[],
    signal: AbortSignal,
  ): Promise<OpResult[]> {
    const argv = [tool === 'bridge' ? 'bridge' : 'ip', '-force', '-batch', '-'];
    const { errors, aborted } = batchErrors(await this.#run(argv, ops.map(commandOf), signal));
    if (aborted !== undefined && (tool === 'ip neigh' || tool === 'ip xfrm') && ops.length > 1) {
      // It does not say which line that was. Setting an entry twice does no harm, so the halves are tried.
      const half = ops.length >> 1;
      const first = await this.#batch(tool, ops.slice(0, half), signal);
      return [...first, ...(await this.#batch(tool, ops.slice(half), signal))];
    }
    return ops.map((op, i): OpResult => {
      const error = errors.get(i + 1) ?? aborted;
      if (error === undefined) return { op, ok: true };
      for (const echoes of this.#listeners) echoes.withdraw(op);
      if (isAlreadySo(op, error)) return { op, ok: true };
      return { op, ok: false, error: withRemedy(op, error) };
    });
  }

  /** One answer (a JSON array) per command; empty for a device that does not exist. */
  async #query(
    tool: 'ip' | 'bridge',
    flags: readonly string[],
    signal: AbortSignal,
    commands: readonly string[],
  ): Promise<JsonObject[][]> {
    const argv = [tool, ...flags, ...(tool === 'ip' ? ['-N'] : []), '-j', '-d', '-force', '-batch', '-'];
    const result = await this.#run(argv, commands, signal);
    const { errors, aborted } = batchErrors(result);
    const answers = result.stdout.split('\n').filter((line) => line.trim() !== '');
    const answered = commands.length - errors.size;
    const failed = aborted ?? [...errors.values()].find((error) => !/does not exist|Cannot find device/.test(error));
    if (failed !== undefined || answers.length !== answered) {
      const because = failed ?? `${answers.length} answers to ${answered} questions`;
      throw unreadable(`${argv.join(' ')} (${commands.join('; ')})`, because);
    }
    return commands.map((command, i) => (errors.has(i + 1) ? [] : parseAnswer(answers.shift() ?? '', command)));
  }

  #run(argv: readonly string[], commands: readonly string[], signal: AbortSignal): Promise<RunResult> {
    return run(argv, {
      stdin: `${commands.join('\n')}\n`,
      okExitCodes: 'any',
      timeoutMs: TIMEOUT_MS,
      netns: this.#netns,
      signal,
    });
  }
}

/** Kinds of the own links that are not there as wanted: one may be there by another name. */
function kindsOfMissing(wanted: WantedState, links: readonly ActualLink[]): readonly OwnLinkKind[] {
  const kinds = wanted.links.flatMap((link) => {
    if (link.kind === 'external') return [];
    const isThere = links.some((found) => isAsWanted(found, link));
    return isThere || linkKind(link.kind).knownBy === undefined ? [] : link.kind;
  });
  return [...new Set(kinds)];
}

/** Whether this is the wanted link, by its name, and could be used as it is. */
function isAsWanted(found: ActualLink, link: OwnWantedLink): boolean {
  const kind: LinkKind<OwnLinkKind> = linkKind(link.kind);
  return found.name === link.name && found.kind === link.kind && kind.suits(link, found.settings);
}

/** The line of `ip -batch` (or `bridge -batch`) for an operation. Exported for its test. */
export function commandOf(op: Op): string {
  switch (op.type) {
    case 'link-add': {
      const { link } = op;
      const words = ['link add name', link.name];
      if (link.mtuBytes !== undefined) words.push('mtu', String(link.mtuBytes));
      if ('mac' in link && link.mac !== undefined) words.push('address', link.mac);
      const kind: LinkKind<OwnLinkKind> = linkKind(link.kind);
      words.push('up type', link.kind, ...kind.create(link));
      return words.join(' ');
    }
    case 'link-delete':
      return `link delete dev ${op.name}`;
    case 'link-set': {
      const words = ['link set dev', op.name];
      if (op.mtuBytes !== undefined) words.push('mtu', String(op.mtuBytes));
      if (op.mac !== undefined) words.push('address', op.mac);
      if (op.alias !== undefined) words.push('alias', op.alias);
      if (op.queuePackets !== undefined) words.push('txqueuelen', String(op.queuePackets));
      if (op.up !== undefined) words.push(op.up ? 'up' : 'down');
      return words.join(' ');
    }
    case 'link-rename':
      return `link set dev ${op.name} name ${op.to}`;
    case 'link-sum-before':
    case 'sysctl-set':
    case 'wireguard-set':
    case 'wireguard-peer-set':
    case 'wireguard-peer-delete':
      throw new TypeError(`unreachable: ${op.type} is not done by ip`);
    case 'address-add': {
      const { link, addr, prefixLength, scope, prefixRoute } = op.address;
      const words = ['addr replace', `${formatAddr(addr)}/${prefixLength}`, 'dev', link];
      // An IPv6 address is used at once: nobody else has an address of this node's own subnet.
      words.push(...(typeof addr === 'number' ? ['scope', scope] : ['nodad']));
      if (!prefixRoute) words.push('noprefixroute');
      return words.join(' ');
    }
    case 'address-delete': {
      const { link, addr, prefixLength, peer } = op.address;
      const local = peer === undefined ? '' : `${formatAddr(addr)} peer `;
      return `addr delete ${local}${formatAddr(peer ?? addr)}/${prefixLength} dev ${link}`;
    }
    case 'neighbour-replace':
      return `neigh replace ${formatAddr(op.neighbour.addr)} lladdr ${op.neighbour.mac} dev ${op.neighbour.link} nud permanent`;
    case 'neighbour-delete':
      return `neigh delete ${formatAddr(op.neighbour.addr)} dev ${op.neighbour.link}`;
    case 'fdb-replace':
      return `fdb replace ${op.entry.mac} dev ${op.entry.link} dst ${formatAddr(op.entry.dst)} self permanent`;
    case 'fdb-delete':
      return `fdb delete ${op.entry.mac} dev ${op.entry.link} dst ${formatAddr(op.entry.dst)} self`;
    case 'policy-set':
    case 'policy-delete':
      return policyCommandOf(op);
    case 'route-add':
      return `route add ${routeWords(op.route)}`;
    case 'route-replace':
      return `route replace ${routeWords(op.route)}`;
    case 'route-delete':
      return `route delete ${routeDeletionWords(op.route)}`;
    default:
      return assertNever(op, 'kernel operation');
  }
}

function routeWords(route: Route): string {
  const words = [...(route.type === 'blackhole' ? ['blackhole'] : []), formatPrefix(route.dst)];
  if (route.type === 'unicast') {
    if (route.via !== undefined) words.push('via', formatAddr(route.via));
    words.push('dev', route.dev);
    if (route.onlink) words.push('onlink');
    if (typeof route.dst.addr === 'number') words.push('scope', route.scope);
  }
  if (route.metric !== undefined) words.push('metric', String(route.metric));
  words.push('table main proto', String(WEFT_ROUTE_PROTOCOL));
  return words.join(' ');
}

/** The protocol number keeps the kernel from ever taking somebody else's route for it. */
function routeDeletionWords(route: ActualRoute): string {
  const words = [...(route.type === 'blackhole' ? ['blackhole'] : []), formatPrefix(route.dst)];
  if (route.via !== undefined) words.push('via', formatAddr(route.via));
  // The kernel puts an IPv6 blackhole route on lo, but does not find it there.
  if (route.dev !== undefined && route.type === 'unicast') words.push('dev', route.dev);
  if (typeof route.dst.addr === 'number' && route.type === 'unicast') words.push('scope', route.scope);
  words.push('metric', String(route.metric), 'table main proto', String(route.protocol));
  return words.join(' ');
}

/**
 * Operations of one tool in a row are one batch. Three are apart from the rest because their failure ends the program in
 * spite of `-force` (iproute2 6.1: `exit(2)` in ipneigh.c and xfrm_policy.c; a missing underlay in iplink_vxlan.c).
 */
type Tool = 'ip' | 'ip link add' | 'ip neigh' | 'ip xfrm' | 'bridge' | 'sysctl' | 'wg' | 'ethtool';

function toolOf(op: Op): Tool {
  switch (op.type) {
    case 'link-add':
      return 'ip link add';
    case 'link-sum-before':
      return 'ethtool';
    case 'sysctl-set':
      return 'sysctl';
    case 'neighbour-replace':
    case 'neighbour-delete':
      return 'ip neigh';
    case 'policy-set':
    case 'policy-delete':
      return 'ip xfrm';
    case 'fdb-replace':
    case 'fdb-delete':
      return 'bridge';
    case 'wireguard-set':
    case 'wireguard-peer-set':
    case 'wireguard-peer-delete':
      return 'wg';
    default:
      return 'ip';
  }
}

/**
 * What each line of a batch run with `-force` failed with: the text before `Command failed -:<line>`. Some failures end
 * the program instead (text at the end, and no such line): then nothing is known about the lines without an error.
 */
function batchErrors(result: RunResult): { errors: Map<number, string>; aborted: string | undefined } {
  const errors = new Map<number, string>();
  let text: string[] = [];
  for (const line of result.stderr.split('\n')) {
    const failed = /^Command failed -:(\d+)$/.exec(line);
    if (failed === null) {
      if (line.trim() !== '') text.push(line.trim());
      continue;
    }
    errors.set(Number(failed[1]), text.join(' ') || 'failed');
    text = [];
  }
  // Exit code 1 is "at least one line failed"; text without a failure is a warning.
  const aborted = result.exitCode === 0 || (result.exitCode === 1 && errors.size > 0);
  return { errors, aborted: aborted ? undefined : text.join(' ') || `exit code ${result.exitCode}` };
}

/** Whether the operation has nothing left to do. */
function isAlreadySo(op: Op, error: string): boolean {
  switch (op.type) {
    case 'link-delete':
      return /Cannot find device/.test(error);
    case 'address-delete':
      return /Cannot assign requested address|address not found|Cannot find device/i.test(error);
    case 'route-delete':
      return /No such process|Cannot find device/.test(error);
    case 'policy-delete':
      return /No such file or directory/.test(error);
    case 'neighbour-delete':
    case 'fdb-delete':
      return /No such file or directory|Cannot find device/.test(error);
    default:
      return false;
  }
}

/** The kernel's words for a kind of link whose module it does not have say nothing of a module. */
function withRemedy(op: Op, error: string): string {
  if (op.type === 'policy-set' && /not supported/.test(error)) {
    return `${error} This kernel has no IPsec: its module xfrm_user is missing. Try modprobe xfrm_user esp4; Debian's linux-image packages have them`;
  }
  if (op.type !== 'link-add' || !/Unknown device type|Operation not supported/.test(error)) return error;
  const { module } = linkKind(op.link.kind);
  return `${error} This kernel has no ${op.link.kind} devices: its module ${module} is missing. Try modprobe ${module}; Debian's linux-image packages have it (linux-image-amd64, linux-image-arm64, linux-image-cloud-amd64)`;
}

type JsonObject = { readonly [key: string]: unknown };

function parseAnswer(text: string, command: string): JsonObject[] {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch (error) {
    throw unreadable(command, `no JSON: ${text.slice(0, 200)}`, error);
  }
  if (!Array.isArray(answer)) throw unreadable(command, `no list: ${text.slice(0, 200)}`);
  return answer as JsonObject[];
}

function unreadable(command: string, because: string, cause?: unknown): WeftError {
  return new WeftError('WEFT_KERNEL_STATE', `reading the kernel's network state with ${command}: ${because}`, {
    hint: 'The agent retries. If the error persists, run the command by hand; weft needs iproute2 5.0 or newer (ip -V).',
    cause,
  });
}

function linkOf(item: JsonObject): ActualLink {
  const info = item.linkinfo as { info_kind?: string; info_data?: JsonObject } | undefined;
  return {
    ...readLinkKind(info?.info_kind, info?.info_data ?? {}),
    name: String(item.ifname),
    mtuBytes: Number(item.mtu),
    up: Array.isArray(item.flags) && item.flags.includes('UP'),
    mac: parseMac(String(item.address)),
    alias: typeof item.ifalias === 'string' ? item.ifalias : undefined,
    // Left out where it is 0.
    queuePackets: Number(item.txqlen ?? 0),
  };
}

function addressesOf(item: JsonObject): ActualAddress[] {
  const found: ActualAddress[] = [];
  for (const info of (item.addr_info ?? []) as JsonObject[]) {
    const addr = parseAddr(String(info.local));
    if (addr === undefined) continue;
    const address: Address = {
      link: String(item.ifname),
      addr,
      prefixLength: Number(info.prefixlen),
      scope: SCOPES[String(info.scope)] ?? 'global',
      prefixRoute: info.noprefixroute !== true,
    };
    found.push({ ...address, peer: info.address === undefined ? undefined : parseAddr(String(info.address)) });
  }
  return found;
}

/** What weft never asks for. A route that has one of these is not one of its wanted routes, whatever else it says. */
const ELABORATE = ['nexthops', 'nhid', 'prefsrc', 'encap', 'metrics', 'mtu', 'advmss', 'realm', 'pref', 'expires'];

function routeOf(family: 4 | 6): (item: JsonObject) => ActualRoute[] {
  return (item) => {
    const dst = parseDestination(item.dst, family);
    // Routes by TOS or source have a key of their own; "cloned" ones are the kernel's cache.
    if (dst === undefined || item.tos !== undefined || (item.from !== undefined && item.from !== 'default')) return [];
    const flags = Array.isArray(item.flags) ? item.flags : [];
    const type = ROUTE_TYPES[String(item.type ?? 1)] ?? 'other';
    const via = typeof item.gateway === 'string' ? parseAddr(item.gateway) : undefined;
    const elaborate =
      // An IPv6 route always has a router preference; medium is none.
      ELABORATE.some((key) => item[key] !== undefined && (key !== 'pref' || item.pref !== 'medium')) ||
      item.via !== undefined;
    return [
      {
        type,
        dst,
        metric: Number(item.metric ?? 0),
        dev: type === 'unicast' && typeof item.dev === 'string' ? item.dev : undefined,
        via,
        onlink: flags.includes('onlink'),
        scope: family === 6 ? 'global' : (SCOPES[String(item.scope ?? 0)] ?? 'global'),
        protocol: Number(item.protocol),
        elaborate,
      },
    ];
  };
}

/** `default`, an address, or a prefix. */
function parseDestination(text: unknown, family: 4 | 6): IpPrefix | undefined {
  if (typeof text !== 'string') return undefined;
  if (text === 'default') return parsePrefix(family === 4 ? '0.0.0.0/0' : '::/0');
  return parsePrefix(text.includes('/') ? text : `${text}/${family === 4 ? 32 : 128}`);
}

function neighbourOf(link: string): (item: JsonObject) => Neighbour[] {
  return (item) => {
    const addr: IpAddr | undefined = parseAddr(String(item.dst));
    const mac = parseMac(String(item.lladdr));
    return addr === undefined || mac === undefined ? [] : [{ link, addr, mac }];
  };
}

function fdbEntryOf(link: string): (item: JsonObject) => FdbEntry[] {
  return (item) => {
    const mac = parseMac(String(item.mac));
    const dst = parseAddr(String(item.dst));
    if (mac === undefined || dst === undefined || item.state !== 'permanent') return [];
    return [{ link, mac, dst }];
  };
}
