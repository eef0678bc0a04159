import { fileURLToPath } from 'node:url';
import { start } from '../../../src/linux/run.ts';
import { removeLeftovers } from './leftovers.ts';

const SELF = fileURLToPath(import.meta.url);

/** The shell holds our end of the pipe together until the program has ended. */
const APART = 'exec 3<&0; setsid "$@" <&3 3<&- & wait';

/**
 * A process of its own that removes what is left of this one's nodes when this one is gone, however it goes: it waits for the end of
 * its input, which the kernel closes with this process. In a session of its own, so that a Ctrl-C does not reach it, and not our
 * child, so that no end of ours takes it along. Disposing ends it as well, with nothing to do.
 */
export async function startReaper(): Promise<AsyncDisposable> {
  const argv = ['sh', '-c', APART, 'sh', process.execPath, '--disable-warning=ExperimentalWarning', SELF];
  const child = await start(argv, { stdin: 'pipe', stdout: 'ignore', stderr: 'ignore' });
  return {
    async [Symbol.asyncDispose]() {
      child.stdin!.end();
      await child.exited;
    },
  };
}

if (process.argv[1] === SELF) {
  for await (const _ of process.stdin);
  await removeLeftovers();
}
