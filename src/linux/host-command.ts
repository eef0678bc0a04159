import { expandVariables, type HostCommand, type HostCommandOutput } from '../config/host-command.ts';
import { run } from './run.ts';

/** A program that somebody else has written may hang; until it ends, none of the others is run. */
const TIMEOUT_MS = 60_000;

/** See RunHostCommand. It is ended when it takes longer than a minute. */
export async function runHostCommand(command: HostCommand, signal: AbortSignal): Promise<HostCommandOutput> {
  const { words, env, stdin } = command;
  const argv = words.map((word) => expandVariables(word, (name) => env[name] ?? process.env[name]));
  const { stdout, stderr } = await run(argv, { env, stdin: `${stdin}\n`, timeoutMs: TIMEOUT_MS, signal });
  return { stdout: stdout.trim(), stderr: stderr.trim() };
}
