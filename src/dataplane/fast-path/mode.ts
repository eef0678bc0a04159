/** Whether packets may take the fast path in the kernel where there is one. */
export const FAST_PATH_MODES = ['auto', 'off'] as const;
export type FastPathMode = (typeof FAST_PATH_MODES)[number];

/**
 * Whether XDP takes what peers send, before the kernel joins packets: `auto` where the device's driver is known to have it and nothing
 * speaks against it; `xdp` also with other drivers.
 */
export const FAST_PATH_IN_MODES = ['auto', 'xdp', 'off'] as const;
export type FastPathInMode = (typeof FAST_PATH_IN_MODES)[number];

/**
 * What keeps the fast path closed although it is wanted: `ipsec-policy`, this host has IPsec policies, round which it would go;
 * `ipv6-forwarding`, the hosts reach each other by IPv6, and this one does not forward it; `unavailable`, the kernel, the capabilities
 * or the devices do not allow it.
 */
export type FastPathObstacle = 'ipsec-policy' | 'ipv6-forwarding' | 'unavailable';

/** Whether packets may take the fast path, and how, or why not. */
export interface FastPathState {
  readonly isOpen: boolean;
  /** What keeps it closed; `undefined` while it is open. */
  readonly obstacle: FastPathObstacle | undefined;
  /** Peers whose agent is away, and has been for a minute. */
  readonly peersAlone: number;
  readonly text: string;
}
