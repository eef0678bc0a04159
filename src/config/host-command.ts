/** A program that the network configuration names, to be run on this host. There is no shell between. */
export interface HostCommand {
  /**
   * The program and its arguments. `$NAME` and `${NAME}` in them are still to be replaced, see {@link expandVariables}: from
   * `env`, else from the agent's environment.
   */
  readonly words: readonly [string, ...string[]];
  /** Beside the agent's own. */
  readonly env: Readonly<Record<string, string>>;
  /** For its standard input; a line break follows. */
  readonly stdin: string;
}

/** What it wrote, without the white space around it. */
export interface HostCommandOutput {
  readonly stdout: string;
  readonly stderr: string;
}

/** @throws WeftError WEFT_COMMAND_FAILED, WEFT_COMMAND_MISSING; the reason of `signal`. */
export type RunHostCommand = (command: HostCommand, signal: AbortSignal) => Promise<HostCommandOutput>;

/** As a person has written it, white space apart. */
export function describeHostCommand({ words }: HostCommand): string {
  return words.join(' ');
}

/**
 * Replaces `$NAME` and `${NAME}` as Go's `os.Expand` does; of a name that is not known nothing is left. A dollar sign without
 * a name stays, and what only looks like one in braces (`${}`, `${A`) goes. No quotes, no escapes, no nesting.
 */
export function expandVariables(text: string, lookUp: (name: string) => string | undefined): string {
  return text.replaceAll(REFERENCE, (match, braced: string | undefined, special: string | undefined, name: string) => {
    if (match === '$') return '$';
    return lookUp(braced ?? special ?? name ?? '') ?? '';
  });
}

/**
 * In this order: a name in braces, of anything but a closing one; braces that have no name or no end, whose opening alone goes;
 * the one-character parameters of a shell; a name; a lone dollar sign.
 */
const REFERENCE = /\$\{([^}]+)\}|\$\{\}|\$\{|\$([*#$@!?\-0-9])|\$(\w+)|\$/g;
