/**
 * Every error that reaches a person. `code` is stable, is listed in docs/ERRORS.md (a test compares the two) and can be
 * matched by scripts; `message` says what was attempted, on what, and what came back; `hint` says what to do.
 */
export type ErrorCode =
  | 'WEFT_CONFIG_INVALID'
  | 'WEFT_CONFIG_UNREADABLE'
  | 'WEFT_CONFIG_MISSING'
  | 'WEFT_USAGE'
  | 'WEFT_SUBNET_EXHAUSTED'
  | 'WEFT_SUBNET_FILE_INVALID'
  | 'WEFT_SUBNET_FILE_UNWRITABLE'
  | 'WEFT_OUTPUT_UNWRITABLE'
  | 'WEFT_LEASE_LOST'
  | 'WEFT_STORE_UNAVAILABLE'
  | 'WEFT_STORE_CORRUPT'
  | 'WEFT_INTERFACE_NOT_FOUND'
  | 'WEFT_TUN_MISSING'
  | 'WEFT_TUN_DENIED'
  | 'WEFT_TUN_BUSY'
  | 'WEFT_TUN_FAILED'
  | 'WEFT_PORT_IN_USE'
  | 'WEFT_SOCKET_FAILED'
  | 'WEFT_NOT_ROOT'
  | 'WEFT_COMMAND_FAILED'
  | 'WEFT_COMMAND_MISSING'
  | 'WEFT_NOT_READY'
  | 'WEFT_KERNEL_STATE'
  | 'WEFT_SYSCTL_FAILED'
  | 'WEFT_TRAFFIC_RULES'
  | 'WEFT_BRIDGE_NETFILTER'
  | 'WEFT_BACKEND_UNKNOWN'
  | 'WEFT_KEY_FILE'
  | 'WEFT_CHARON_MISSING'
  | 'WEFT_CHARON_FAILED'
  | 'WEFT_FORWARDER_FAILED'
  | 'WEFT_FAST_PATH'
  | 'WEFT_TRACE_UNAVAILABLE'
  | 'WEFT_HEALTH_LISTEN'
  | 'WEFT_API_LISTEN'
  | 'WEFT_API_UNREACHABLE'
  | 'WEFT_API_REFUSED'
  | 'WEFT_LAB_FAILED'
  | 'WEFT_AGENT_RUNNING'
  | 'WEFT_CLEANUP_INCOMPLETE'
  | 'WEFT_ETCD_TLS'
  | 'WEFT_ETCD_DENIED'
  | 'WEFT_KUBE_CONFIG'
  | 'WEFT_KUBE_REFUSED'
  | 'WEFT_KUBE_NODE'
  | 'WEFT_CNI_CONF_INVALID'
  | 'WEFT_CNI_CONF_UNWRITABLE'
  | 'WEFT_CNI_PLUGIN_MISSING'
  | 'WEFT_ADDON_UNLOADABLE'
  | 'WEFT_CLOUD_API'
  | 'WEFT_UI_AGENT_AWAY'
  | 'WEFT_UI_LISTEN'
  | 'WEFT_UI_PAGE_MISSING'
  | 'WEFT_UNSUPPORTED_PLATFORM';

export interface WeftErrorOptions {
  /** What the reader can do about it, as one or more sentences. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/**
 * An error that a person sees. The message says what was attempted, on what, and what came back; the hint what to do about it. Each
 * code has a row in docs/ERRORS.md.
 */
export class WeftError extends Error {
  override readonly name = 'WeftError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: WeftErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}

/** The same failure with words before it that say what could not be done because of it. */
export function prefixed(words: string, error: unknown): unknown {
  if (!(error instanceof WeftError)) return error;
  const { code, message, hint, cause } = error;
  return new WeftError(code, `${words}${message}`, { ...(hint === undefined ? {} : { hint }), cause });
}

/** One line for logs and terminals: message, then the code, then the hint. Never throws, whatever was thrown. */
export function describeError(error: unknown): string {
  if (error instanceof WeftError) {
    return `${error.message} [${error.code}]${error.hint === undefined ? '' : `. ${error.hint}`}`;
  }
  try {
    return error instanceof Error ? error.message : String(error);
  } catch {
    return 'an object that has no text';
  }
}

/** For an error that should not have been possible: where it came from as well, on one line. Never throws. */
export function describeFault(error: unknown): string {
  if (error instanceof WeftError || !(error instanceof Error)) return describeError(error);
  return (error.stack ?? error.message).replaceAll(/\s*\n\s*/g, ' | ');
}
