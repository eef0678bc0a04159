/** Where servers run, where they keep their files, and who starts their processes. Everything has a default. */
import { closeSync, openSync } from 'node:fs';
import { type Child, start } from '../../linux/run.ts';

export interface ServerPlace {
  /** Network namespace; without one they run in this process's, on free ports. */
  readonly netns?: string | undefined;
  /** The address at which clients reach them; must exist where the servers run. Default 127.0.0.1. */
  readonly address?: string | undefined;
  /** An empty folder for all their files. Default: a temporary one. It goes away when the servers are disposed of. */
  readonly directory?: string | undefined;
  /** Default: a child of this process that ends with it. A lab has its processes on record, so that a crash leaves none. */
  readonly launch?: Launch | undefined;
}

/** Starts a program where the servers run, both its outputs appended to a file. */
export type Launch = (
  argv: readonly string[],
  logFile: string,
  env: Readonly<Record<string, string>> | undefined,
) => Promise<Child>;

/** By which servers are started there. */
export function launcherOf({ launch, netns }: ServerPlace): Launch {
  return launch ?? ((argv, logFile, env) => startLogged(argv, logFile, netns, env));
}

async function startLogged(
  argv: readonly string[],
  logFile: string,
  netns: string | undefined,
  env: Readonly<Record<string, string>> | undefined,
): Promise<Child> {
  const log = openSync(logFile, 'a');
  try {
    return await start(argv, { stdout: log, stderr: log, netns, env });
  } finally {
    closeSync(log);
  }
}
