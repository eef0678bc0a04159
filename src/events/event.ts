/** What an event is about. Later versions may add kinds: whoever reads events from elsewhere must take any text. */
export const EVENT_KINDS = [
  /** The agent began its life. */
  'agent-started',
  /** The node carries packets, or does again. */
  'ready',
  /** A part of the node that packets or pods need has failed. */
  'not-ready',
  'lease-acquired',
  'lease-renewed',
  /** The own entry was gone from the store and has been written again. */
  'lease-retaken',
  'lease-lost',
  /** Another host has this host's subnet and came first. */
  'subnet-conflict',
  'subnet-conflict-over',
  /** An entry of the store is not believed. */
  'entry-refused',
  /** An entry of the store cannot be read. */
  'entry-unreadable',
  'peer-added',
  'peer-changed',
  'peer-removed',
  /** So many peers changed at once that they are told in one event. */
  'peers-changed',
  /** A peer cannot be reached, or in one family only. */
  'peer-skipped',
  /** Probes have found what is wrong with the way to a peer, or that it is something else now. */
  'path-fault',
  /** Nothing is wrong with it any more. */
  'path-recovered',
  'store-away',
  'store-back',
  /** The network configuration of the store is another one than this agent works with. */
  'config-changed',
  /** The agent works with another backend than the one before it on this host. */
  'backend-changed',
  'interface-changed',
  'interface-lost',
  /** The kernel was brought to what is wanted now: what followed from the events before. */
  'kernel-changed',
  /** Kernel state that somebody had changed was put back. */
  'kernel-repaired',
  'kernel-failed',
  /** What stands in the way of the wanted kernel state. */
  'kernel-problem',
  'rules-repaired',
  'rules-failed',
  'rules-recovered',
  'forwarder-started',
  'forwarder-failed',
  'fast-path-opened',
  'fast-path-closed',
] as const;

export type EventKind = (typeof EVENT_KINDS)[number];

export const SEVERITIES = ['info', 'warning', 'error'] as const;
export type Severity = (typeof SEVERITIES)[number];

/** Something that happened on this host, or that this host learned. */
export interface AgentEvent {
  /** Rises by one with each event of a process, from 1. */
  readonly id: number;
  /** Milliseconds since the epoch. */
  readonly atMs: number;
  readonly kind: EventKind;
  readonly severity: Severity;
  /** Whom or what it is about: a subnet, a device, a store. */
  readonly subject: string;
  /** One sentence. */
  readonly text: string;
  /** Why: who changed it, or what was found. */
  readonly cause?: string | undefined;
  /** The store's count of changes (etcd's revision, or the time of an entry), where it says one. */
  readonly revision?: number | undefined;
  /** What was done to the kernel, one line each, in order; of many, the first. Only the latest events keep it. */
  readonly operations?: readonly string[] | undefined;
  /** Operations that are not among them. */
  readonly moreOperations?: number | undefined;
}

/** Of its operations, as many are kept as an event may have. */
export type NewEvent = Omit<AgentEvent, 'id' | 'atMs' | 'moreOperations'>;

/** Takes what happened; never throws and never waits. */
export type RecordEvent = (event: NewEvent) => void;
