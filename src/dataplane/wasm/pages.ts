/** Size of the arena in WebAssembly pages of 64 KiB; the compiled module declares the same number. */
export const ARENA_PAGES = 80;
