/** Something that an operator of the cluster must know, told where others look for the state of this node. */
export interface NodeEvent {
  /** One word in CamelCase. */
  readonly reason: string;
  readonly type: 'Normal' | 'Warning';
  readonly message: string;
  /** Milliseconds since the epoch. */
  readonly firstAtMs: number;
  readonly lastAtMs: number;
  /** How often it has happened since `firstAtMs`. */
  readonly count: number;
}

/**
 * Tells it, or that it has happened again. `refused`: this account may not.
 * @throws when it could not be told now.
 */
export type TellNodeEvent = (event: NodeEvent, signal: AbortSignal) => Promise<'told' | 'refused'>;
