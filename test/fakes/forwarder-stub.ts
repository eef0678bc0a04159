/** What forwarder-stub-worker.ts can be told, by the first counter cell. */
export const STUB_ORDERS = { none: 0, crash: 1, loseTun: 2, loseSocket: 3, end: 4 } as const;

/** How it starts, by the number of the TUN descriptor. */
export const STUB_STARTS = { well: 1_001, throws: 1_002, hangs: 1_003 } as const;
