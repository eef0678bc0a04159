import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { CNI_CODES, CniError, systemErrorText } from '../../cni/cni-error.ts';
import { pluginRemedy, statOrUndefined } from '../../cni/plugin-remedy.ts';
import { hasErrno } from '../../errno.ts';
import { jsonValueOf, parseGoJson } from '../../lease/go-json.ts';
import type { Environment } from './request.ts';

/** A delegate's program that exists. */
export interface Delegate {
  readonly type: string;
  readonly program: string;
}

/** A delegate prints little; this only keeps one gone wild from filling the memory. */
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;

/** An installer may be writing the program this very moment (ETXTBSY). */
const BUSY_RETRIES = 20;
const BUSY_WAIT_MS = 250;

/**
 * Looks for the delegate in the folders of CNI_PATH, in their order.
 *
 * @throws CniError (999) that names the folders and what to install.
 */
export function findDelegate(type: string, path: readonly string[]): Delegate {
  if (type === '') throw new CniError(CNI_CODES.internal, 'no plugin name provided');
  if (type.includes('/')) throw new CniError(CNI_CODES.internal, `invalid plugin name: ${type}`);
  for (const folder of path) {
    const program = join(folder, type);
    if (statOrUndefined(program)?.isFile()) return { type, program };
  }
  throw new CniError(
    CNI_CODES.internal,
    `failed to find plugin ${JSON.stringify(type)} in path [${path.join(' ')}]. ${pluginRemedy(type, path)}`,
  );
}

/**
 * Runs the delegate and returns what it printed. Its standard error goes to ours.
 *
 * @throws CniError the delegate's own, unchanged, when it printed one; else (999) what it printed or how it ended.
 */
export function runDelegate(delegate: Delegate, json: string, env: Environment, warn: (text: string) => void): string {
  const result = spawnPatiently(delegate.program, json, env);
  // A delegate that answers without reading its input has done no wrong.
  if (result.error !== undefined && !hasErrno(result.error, 'EPIPE')) {
    throw new CniError(
      CNI_CODES.internal,
      `could not run the plugin ${delegate.program}: ${systemErrorText(result.error)}`,
    );
  }
  const [stdout, stderr] = [result.stdout.toString('utf8'), result.stderr.toString('utf8')];
  if (result.status === 0) {
    if (stderr !== '') warn(stderr);
    return stdout;
  }
  throw delegateError(
    stdout,
    stderr,
    result.signal === null ? `exit status ${result.status}` : `signal: ${result.signal}`,
  );
}

function spawnPatiently(program: string, input: string, env: Environment): ReturnType<typeof spawnSync> {
  for (let attempt = 0; ; attempt++) {
    const result = spawnSync(program, [], { input, env: { ...env }, maxBuffer: MAX_OUTPUT_BYTES });
    if (!hasErrno(result.error, 'ETXTBSY') || attempt === BUSY_RETRIES) return result;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BUSY_WAIT_MS);
  }
}

function delegateError(stdout: string, stderr: string, ended: string): CniError {
  if (stdout.trim() === '') {
    return new CniError(
      CNI_CODES.internal,
      stderr === ''
        ? `netplugin failed with no error message: ${ended}`
        : `netplugin failed: ${JSON.stringify(stderr)}`,
    );
  }
  const parsed = parseGoJson(stdout);
  const said = parsed.ok ? jsonValueOf(parsed.node) : undefined;
  if (said === null || typeof said !== 'object' || Array.isArray(said)) {
    const what = JSON.stringify(stdout.slice(0, 1000));
    return new CniError(CNI_CODES.internal, `netplugin failed but its diagnostic message is no JSON object: ${what}`);
  }
  const { code, msg, details } = said as Readonly<Record<string, unknown>>;
  return new CniError(
    typeof code === 'number' ? code : CNI_CODES.internal,
    typeof msg === 'string' && msg !== '' ? msg : `netplugin failed with no error message: ${ended}`,
    typeof details === 'string' ? details : '',
  );
}
