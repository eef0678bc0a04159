import { trouble } from './state.ts';

/** In the place of a screen that has nothing to show yet, or nothing any more. */
export function Waiting() {
  return <p class="empty">{trouble.value ?? 'Asking the agents…'}</p>;
}
