import { DROP_REASONS, type DropReasonName } from './drop-reason.ts';

/** Of packets: `tx` from the TUN device to the socket, `rx` back. */
export type Direction = 'tx' | 'rx';

export interface PeerCounters {
  readonly packets: number;
  readonly bytes: number;
  readonly drops: Readonly<Partial<Record<DropReasonName, number>>>;
}

const PER_DIRECTION = 2 + DROP_REASONS.length;
const STRIDE = 2 * PER_DIRECTION;

/** Worker-wide figures that belong to no peer: how often system calls were made, for `weft status` and the bench. */
export const GAUGES = [
  'txReads',
  'txSends',
  'txBatches',
  'rxReceives',
  'rxWrites',
  'rxDatagrams',
  'rxCoalesced',
  'rxSigns',
  'icmpSent',
  'icmpSuppressed',
  'gsoFallbacks',
] as const;
export type GaugeName = (typeof GAUGES)[number];

/**
 * Packet counters in shared memory. Every cell has one writer (the worker of its direction) and any number of readers;
 * a cell is a float64, exact to 2^53, because adding to one costs nothing and a 64-bit aligned store is not torn on the
 * architectures weft runs on. Slot 0 counts what could not be laid at a peer's door.
 */
export class Counters {
  readonly buffer: SharedArrayBuffer;
  readonly #cells: Float64Array;
  readonly #gaugeBase: number;

  /** @param slots number of peer slots, slot 0 included. Pages are only touched when a slot counts. */
  static allocate(slots: number): Counters {
    return new Counters(new SharedArrayBuffer((slots * STRIDE + GAUGES.length) * 8));
  }

  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#cells = new Float64Array(buffer);
    this.#gaugeBase = this.#cells.length - GAUGES.length;
  }

  #cell(slot: number, direction: Direction): number {
    return slot * STRIDE + (direction === 'tx' ? 0 : PER_DIRECTION);
  }

  passed(slot: number, direction: Direction, packets: number, bytes: number): void {
    const at = this.#cell(slot, direction);
    this.#cells[at]! += packets;
    this.#cells[at + 1]! += bytes;
  }

  dropped(slot: number, direction: Direction, reason: number, packets: number): void {
    this.#cells[this.#cell(slot, direction) + 2 + reason]! += packets;
  }

  gauge(name: number, by: number): void {
    this.#cells[this.#gaugeBase + name]! += by;
  }

  read(slot: number, direction: Direction): PeerCounters {
    const at = this.#cell(slot, direction);
    const drops: Partial<Record<DropReasonName, number>> = {};
    DROP_REASONS.forEach((name, reason) => {
      const count = this.#cells[at + 2 + reason] ?? 0;
      if (count > 0) drops[name] = count;
    });
    return { packets: this.#cells[at] ?? 0, bytes: this.#cells[at + 1] ?? 0, drops };
  }

  readGauges(): Record<GaugeName, number> {
    return Object.fromEntries(GAUGES.map((name, index) => [name, this.#cells[this.#gaugeBase + index] ?? 0])) as Record<
      GaugeName,
      number
    >;
  }

  /** A slot that is given to another peer starts at zero. The workers must no longer see the old peer. */
  clear(slot: number): void {
    this.#cells.fill(0, slot * STRIDE, (slot + 1) * STRIDE);
  }
}

export const GAUGE_TX_READS: number = GAUGES.indexOf('txReads');
export const GAUGE_TX_SENDS: number = GAUGES.indexOf('txSends');
export const GAUGE_TX_BATCHES: number = GAUGES.indexOf('txBatches');
export const GAUGE_RX_RECEIVES: number = GAUGES.indexOf('rxReceives');
export const GAUGE_RX_WRITES: number = GAUGES.indexOf('rxWrites');
export const GAUGE_RX_DATAGRAMS: number = GAUGES.indexOf('rxDatagrams');
export const GAUGE_RX_SIGNS: number = GAUGES.indexOf('rxSigns');
export const GAUGE_RX_COALESCED: number = GAUGES.indexOf('rxCoalesced');
export const GAUGE_ICMP_SENT: number = GAUGES.indexOf('icmpSent');
export const GAUGE_ICMP_SUPPRESSED: number = GAUGES.indexOf('icmpSuppressed');
export const GAUGE_GSO_FALLBACKS: number = GAUGES.indexOf('gsoFallbacks');
