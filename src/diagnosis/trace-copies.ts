/** Packets that an agent, a queue before it or the kernel of its host has dropped, or that came from the peer. */
export interface CountedRise {
  readonly host: string;
  readonly side: 'tx' | 'rx' | 'queue' | 'kernel' | 'received';
  readonly reason: string;
  readonly packets: number;
}

export interface CopiesFacts {
  readonly copies: number;
  /** While the first packet was on its way. */
  readonly meanwhile: readonly CountedRise[];
  readonly ofCopies: readonly CountedRise[];
  /** How long the copies took, to how long the first packet did. */
  readonly share: number;
  readonly farHost: string;
}

export interface Proof {
  readonly copies: number;
  readonly drops: readonly CountedRise[];
  /** Whether the far host's agent has received them, as far as it counts that. */
  readonly hasArrived: boolean | 'unclear';
  readonly notes: readonly string[];
}

/** Of all copies: some may be counted late, or lost before. */
const ENOUGH = 0.8;
/** With so many other packets for each copy, nothing can be told. */
const TOO_MANY_OTHERS = 2;

/** Which of what agents have counted while copies of a packet were sent can only be those copies. Pure. */
export function judgeCopies({ copies, meanwhile, ofCopies, share, farHost }: CopiesFacts): Proof {
  const others = ({ host, side, reason }: CountedRise): number => {
    const rise = meanwhile.find((one) => one.host === host && one.side === side && one.reason === reason);
    return Math.max(0, (rise?.packets ?? 0) - 1) * share;
  };
  const isClear = (rise: CountedRise): boolean => others(rise) <= TOO_MANY_OTHERS * copies;
  const isProven = (rise: CountedRise): boolean => isClear(rise) && rise.packets - others(rise) >= ENOUGH * copies;
  const isDrop = ({ side }: CountedRise): boolean => side !== 'received';
  const drops = ofCopies.filter((rise) => isDrop(rise) && isProven(rise));
  const rest = [...meanwhile, ...ofCopies].filter(
    (rise) => isDrop(rise) && !drops.some((one) => one.host === rise.host && nameOf(one) === nameOf(rise)),
  );
  const names = new Set(rest.map((rise) => `${nameOf(rise)} at ${rise.host}`));
  const note = `dropped meanwhile, of other packets: ${[...names].join(', ')}`;
  const received: CountedRise = ofCopies.find(({ host, side }) => host === farHost && side === 'received') ?? {
    ...{ host: farHost, side: 'received', reason: 'packets', packets: 0 },
  };
  const hasArrived = isClear(received) ? isProven(received) : 'unclear';
  return { copies, drops, hasArrived, notes: names.size === 0 ? [] : [note] };
}

function nameOf({ side, reason }: CountedRise): string {
  return side === 'kernel' ? `kernel ${reason}` : `${reason} (${side})`;
}
