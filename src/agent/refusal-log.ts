import { describeRefusal, type Refusal } from '../lease/refusal.ts';
import type { Log } from '../log/log.ts';
import { EntryLines } from './entry-lines.ts';

/** Says of each entry of the store that is not believed why, once; of thousands of them that there are more. */
export class RefusalLog {
  readonly #log: Pick<Log, 'error' | 'warn'>;
  /** Two hosts that claim one subnet are cut off from some of the others: that is not lost among what else is refused. */
  readonly #ofOwn: EntryLines;
  readonly #ofOthers: EntryLines;

  constructor(log: Pick<Log, 'error' | 'warn'>, now?: () => number) {
    this.#log = log;
    this.#ofOwn = new EntryLines(now);
    this.#ofOthers = new EntryLines(now);
  }

  /** @returns those that it has said. */
  say(news: readonly Refusal[]): Refusal[] {
    const said: Refusal[] = [];
    for (const refusal of news) {
      const isOfOwn = refusal.reason === 'overlaps-own';
      const unsaid = (isOfOwn ? this.#ofOwn : this.#ofOthers).next();
      if (unsaid === undefined) continue;
      said.push(refusal);
      const more = unsaid === 0 ? '' : ` (${unsaid} more were refused and not logged)`;
      const text = `${describeRefusal(refusal)}${more}`;
      // Nobody should have to look for it.
      if (isOfOwn) this.#log.error(text);
      else this.#log.warn(text);
    }
    return said;
  }
}
