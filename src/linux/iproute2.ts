import type { Kernel, OpResult } from '../desired/kernel.ts';
import type { LinkKind } from '../desired/link-kinds/link-kind.ts';
import { linkKind } from '../desired/link-kinds/table.ts';
import type { Op } from '../desired/op.ts';
import { neighbourLinks } from '../desired/plan/links.ts';
import type {
  ActualAddress,
  ActualLink,
  ActualState,
  ActualSysctl,
  LinkSysctl,
  OwnLinkKind,
  OwnWantedLink,
  WantedState,
} from '../desired/state.ts';
import { describeError } from '../errors.ts';
import { readDeviceFacts, turnFeatureOff } from './ethtool.ts';
import { errnoName } from './ffi.ts';
import {
  addressesOf,
  batchErrors,
  fdbEntryOf,
  type JsonObject,
  linkOf,
  neighbourOf,
  parseAnswer,
  routeOf,
  unreadable,
} from './iproute2-answers.ts';
import { commandOf, type Tool, toolOf } from './iproute2-commands.ts';
import { readIpsecPolicies } from './ipsec-policies.ts';
import { concerns, IpMonitor, type IpMonitorOptions, linkIndex } from './link-monitor.ts';
import { OwnEchoes } from './own-echoes.ts';
import { type RunResult, run } from './run.ts';
import { isSysctlWritable, readSysctl, setSysctl } from './sysctl.ts';
import { applyWireguard, readWireguard } from './wireguard.ts';

export type Iproute2Options = Omit<IpMonitorOptions, 'about'>;

/** A dump of a large table takes a second or two; longer than this means that something hangs. */
const TIMEOUT_MS = 30_000;

const SUM_FEATURE = 'tx-checksum-ip-generic';

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
