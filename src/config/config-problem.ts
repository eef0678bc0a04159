import { WeftError } from '../errors.ts';
import { showInvisible } from '../invisible.ts';

/** One thing wrong with a configuration, at a JSON path such as `$.Backend.Port`. */
export interface ConfigProblem {
  readonly path: string;
  readonly message: string;
}

/** The JSON path of a member: `$.Backend.Port`, or `$["odd key"]` where a dot would mislead. */
export function memberPath(parent: string, key: string): string {
  return /^[A-Za-z_][\w-]*$/.test(key) ? `${parent}.${key}` : `${parent}[${showInvisible(JSON.stringify(key))}]`;
}

/** All problems in one WEFT_CONFIG_INVALID. `source` names the file or key that holds the configuration. */
export function configInvalid(source: string, problems: readonly ConfigProblem[]): WeftError {
  const list = problems.map(({ path, message }) => `${path}: ${message}`).join('; ');
  return new WeftError('WEFT_CONFIG_INVALID', `cannot use the network configuration in ${source}: ${list}`, {
    hint:
      problems.length === 1
        ? `Correct it in ${source}, then start again.`
        : `Correct all ${problems.length} problems in ${source}, then start again.`,
  });
}
