/**
 * What a CNI plugin answers when it fails: the codes are those of the CNI specification (section 5, "Error"), which
 * runtimes act upon, so these errors have no `WEFT_` code.
 */
export const CNI_CODES = {
  incompatibleVersion: 1,
  invalidEnvironment: 4,
  ioFailure: 5,
  decodingFailure: 6,
  invalidNetworkConfig: 7,
  invalidNetns: 8,
  tryAgainLater: 11,
  /** STATUS: no container can be added now. */
  notAvailable: 50,
  /** STATUS: as 50, and containers that are there may have lost connections. */
  notAvailableLimited: 51,
  internal: 999,
} as const;

export class CniError extends Error {
  override readonly name = 'CniError';
  readonly code: number;
  readonly details: string;

  constructor(code: number, message: string, details = '') {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** Anything thrown as the error to answer with; what is no {@link CniError} is an internal one (999). */
export function toCniError(error: unknown): CniError {
  if (error instanceof CniError) return error;
  return new CniError(CNI_CODES.internal, error instanceof Error ? error.message : String(error));
}

/** `no such file or directory` for an errno of Node's, as Go words them; other errors by their own message. */
export function systemErrorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error ? error.code : undefined;
  const known = typeof code === 'string' ? ERRNO_TEXTS[code] : undefined;
  return known ?? error.message;
}

const ERRNO_TEXTS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EISDIR: 'is a directory',
  ENOENT: 'no such file or directory',
  ENOSPC: 'no space left on device',
  ENOTDIR: 'not a directory',
  EPERM: 'operation not permitted',
  EROFS: 'read-only file system',
};
