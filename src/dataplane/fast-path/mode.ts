/** Whether packets may take the fast path in the kernel where there is one. */
export const FAST_PATH_MODES = ['auto', 'off'] as const;
export type FastPathMode = (typeof FAST_PATH_MODES)[number];

/**
 * What keeps the fast path closed although it is wanted: `ipsec-policy`, this host has IPsec policies, round which it would go;
 * `unavailable`, the kernel, the capabilities or the devices do not allow it.
 */
export type FastPathObstacle = 'ipsec-policy' | 'unavailable';
