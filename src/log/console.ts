import shared from 'node:console';
import { format } from 'node:util';
import type { Log } from './log.ts';

/** What packages only mention, klog's -v. */
const MENTIONED = 2;

/**
 * Packages tell the console what they have nobody else to tell, and the console waits for whoever reads it: a pipe that is full would
 * stop the agent. Until disposed, that becomes lines of the log, which waits for nobody.
 */
export function consoleInto(log: Pick<Log, 'warn' | 'error' | 'verbose'>): Disposable {
  const mention = (...words: readonly unknown[]): void => log.verbose(MENTIONED, format(...words));
  const instead = {
    error: (...words: readonly unknown[]): void => log.error(format(...words)),
    warn: (...words: readonly unknown[]): void => log.warn(format(...words)),
    info: mention,
    log: mention,
    debug: mention,
  };
  const { error, warn, info, log: plain, debug } = shared;
  Object.assign(shared, instead);
  return { [Symbol.dispose]: () => void Object.assign(shared, { error, warn, info, log: plain, debug }) };
}
