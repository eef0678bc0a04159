import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DestinationCheck } from '../../dataplane/destination-check.ts';
import { FastPathTables } from '../../dataplane/fast-path/fast-path-tables.ts';
import { inboundProgram } from '../../dataplane/fast-path/inbound-program.ts';
import { type MapName, mapsBy, type UnderlayLayout, underlayLayout } from '../../dataplane/fast-path/layout.ts';
import { outboundProgram } from '../../dataplane/fast-path/outbound-program.ts';
import type { ProgramOptions } from '../../dataplane/fast-path/skb-program.ts';
import { xdpProgram } from '../../dataplane/fast-path/xdp-program.ts';
import { MAX_PEERS } from '../../dataplane/supervisor.ts';
import { describeError } from '../../errors.ts';
import { attachTcx, attachXdp, createBpfMap, endPinned, loadClassifier, loadXdp } from '../bpf.ts';
import { removeBpfDirectory } from '../bpf-directory.ts';
import { type Place, placeNumber, type WayIn } from './place.ts';

/** How many entries a map may have: one for each peer, but for these. */
const ONE_A_PEER = MAX_PEERS + 1;
const ENTRIES: Partial<Readonly<Record<MapName, number>>> = {
  // Looking for an entry of a hash table, the kernel walks its buckets, of which there are as many as it may have entries, and this one is
  // looked at again and again. Hosts that find no room in one turn are named in a later one.
  awaiting: 1_024,
  agent: 1,
};

/** Maps of another layout are in other directories, and go when their programs have been replaced. */
const LAYOUT_PREFIX = 'layout-';
const layoutDirectory = (directory: string, { name }: UnderlayLayout): string =>
  join(directory, `${LAYOUT_PREFIX}${name}`);
/** Of other layouts than this one. */
function otherLayouts(directory: string, layout: UnderlayLayout): string[] {
  // `weft cleanup` may have been there.
  const names = existsSync(directory) ? readdirSync(directory) : [];
  const own = layoutDirectory(directory, layout);
  return names
    .filter((name) => name.startsWith(LAYOUT_PREFIX))
    .map((name) => join(directory, name))
    .filter((path) => path !== own);
}
const SIDES = ['out', 'in'] as const;
/** With the maps that its program knows, so that it ends with them also where an agent of another layout knows nothing of it. */
const xdpPin = (layoutPath: string): string => join(layoutPath, 'xdp');

/**
 * The maps of the fast path in this host's kernel.
 * @param directory where they are kept, and may be already, with what an agent before this one knew.
 * @param underlay by which version of IP the hosts reach each other.
 * @throws WeftError WEFT_FAST_PATH when it has no BPF for us.
 */
export function createFastPathTables(directory: string | undefined, underlay: 4 | 6): FastPathTables {
  using stack = new DisposableStack();
  const layout = underlayLayout(underlay);
  const maps = directory === undefined ? undefined : layoutDirectory(directory, layout);
  if (maps !== undefined) mkdirSync(maps, { recursive: true, mode: 0o700 });
  const tables = new FastPathTables(
    mapsBy(layout, (each, shape) => {
      const name = `weft_${each}`;
      const options = { ...shape, name, maxEntries: ENTRIES[each] ?? ONE_A_PEER };
      return stack.use(createBpfMap(options, maps && join(maps, name)));
    }),
    layout,
  );
  stack.move();
  return tables;
}

/** The programs on the devices; they end when it is disposed of, unless they are kept. */
export interface AttachedPrograms extends Disposable {
  /** Whether what was known before counts on. */
  readonly isTakenOver: boolean;
  /** Why there is no XDP although the place has room for it. */
  readonly refusal: string | undefined;
  /** Whether XDP takes what peers send. */
  readonly takesCut: boolean;
}

/**
 * Puts the programs in their place, or takes over those that are kept there. What is known counts for the place where it was learned, and
 * as long as the programs were there all the time.
 * @throws WeftError WEFT_FAST_PATH when the kernel refuses them.
 */
export function attachPrograms(
  tables: FastPathTables,
  place: Place,
  destinationCheck: DestinationCheck,
  directory: string | undefined,
): AttachedPrograms {
  const options = { maps: tables.maps, ...place, destinationCheck, takesCut: place.wayIn.type === 'xdp' };
  const isSamePlace = tables.agent().place === placeNumber(place);
  if (!isSamePlace) tables.forget();
  using stack = new DisposableStack();
  const open = (side: (typeof SIDES)[number], code: Uint8Array, device: number): boolean => {
    const program = stack.use(loadClassifier(`weft_${side}`, code));
    const tcxSide = side === 'in' ? 'ingress' : 'egress';
    return stack.use(attachTcx(program, device, tcxSide, directory && join(directory, side))).isTakenOver;
  };
  const areTakenOver = [
    open('out', outboundProgram(options), place.tunIndex),
    open('in', inboundProgram(options), place.underlayIndex),
  ];
  const isGapless = !areTakenOver.includes(false);
  if (!isGapless) tables.forget();
  // Last, because what it takes needs the one behind it.
  const refusal = attachWayIn(options, place.wayIn, directory, tables.layout, stack);
  if (directory !== undefined) otherLayouts(directory, tables.layout).forEach(removeBpfDirectory);
  const held = stack.move();
  return {
    isTakenOver: isSamePlace && isGapless,
    refusal,
    takesCut: options.takesCut && refusal === undefined,
    [Symbol.dispose]: () => held.dispose(),
  };
}

/** Whether programs are kept there that go on with maps of another number, for the same version of IP between the hosts. */
export function areKeptByOthers(directory: string, layout: UnderlayLayout): boolean {
  const own = basename(layoutDirectory(directory, layout));
  const kindOf = (name: string): string => name.replace(/\d+/, '');
  const others = otherLayouts(directory, layout).map((path) => basename(path));
  return (
    SIDES.every((side) => existsSync(join(directory, side))) && others.some((name) => kindOf(name) === kindOf(own))
  );
}

/** Why there is none, where the kernel refuses it: packets then take the other ways. */
function attachWayIn(
  options: ProgramOptions,
  wayIn: WayIn,
  directory: string | undefined,
  layout: UnderlayLayout,
  stack: DisposableStack,
): string | undefined {
  const pin = directory && xdpPin(layoutDirectory(directory, layout));
  if (wayIn.type !== 'xdp') {
    if (pin !== undefined) endPinned(pin);
    return undefined;
  }
  const earlierPins = directory === undefined ? [] : otherLayouts(directory, layout).map(xdpPin);
  try {
    const program = stack.use(loadXdp('weft_xdp', xdpProgram({ ...options, ownMac: wayIn.ownMac })));
    stack.use(attachXdp(program, options.underlayIndex, pin, earlierPins));
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}

/**
 * Ends the programs that are kept in that directory, also those of an agent with another layout. XDP goes first: without a program behind
 * it nobody would know what to do with the packets that it takes.
 */
export function endKept(directory: string, layout: UnderlayLayout): void {
  otherLayouts(directory, layout).forEach(removeBpfDirectory);
  const pins = [xdpPin(layoutDirectory(directory, layout)), ...SIDES.map((side) => join(directory, side))];
  pins.forEach(endPinned);
}
