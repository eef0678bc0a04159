/** Whether packets may take the fast path in the kernel where there is one. */
export const FAST_PATH_MODES = ['auto', 'off'] as const;
export type FastPathMode = (typeof FAST_PATH_MODES)[number];
