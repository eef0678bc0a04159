/** The pictures of the page that documents show: what each has in it. `make screenshots` takes them. */
import { join } from 'node:path';
import { ROOT } from './packaging/architecture.ts';

export const IMAGES: string = join(ROOT, 'docs', 'images');
/** A clone is fetched by people who only want to build it. */
export const MAX_PICTURE_BYTES = 100_000;

export const WIDTH = 1080;
export interface Picture {
  /** Of the file. */
  readonly name: string;
  readonly path: string;
  readonly colorScheme: 'light' | 'dark';
  readonly height: number;
  /** What is left out above. */
  readonly top?: number;
  /** Of the walk. */
  readonly steps?: number;
  /** What the filter is to find. */
  readonly filter?: string;
  /** A row that is chosen, by a text in it. */
  readonly row?: string;
}

export const PICTURES: readonly Picture[] = [
  { name: 'walk', path: '/walk', colorScheme: 'light', height: 712, top: 90, steps: 8 },
  { name: 'map', path: '/map', colorScheme: 'dark', height: 460 },
  { name: 'matrix', path: '/matrix', colorScheme: 'dark', height: 260 },
  {
    name: 'timeline',
    path: '/timeline',
    colorScheme: 'dark',
    height: 376,
    filter: 'h1 -peer -path',
    row: 'kernel-changed',
  },
  { name: 'host', path: '/host/h1', colorScheme: 'light', height: 560 },
];
