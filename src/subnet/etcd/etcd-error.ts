import { status } from '@grpc/grpc-js';
import { type ErrorCode, WeftError } from '../../errors.ts';

/** A failed request to etcd. `temporary`: may go well when it is made again later, to this or another endpoint. */
export class EtcdError extends WeftError {
  readonly temporary: boolean;
  /** gRPC status code (grpc's doc/statuscodes.md). */
  readonly grpcCode: number;
  /** etcd's or gRPC's own words. */
  readonly details: string;

  constructor(
    code: ErrorCode,
    message: string,
    options: { temporary: boolean; grpcCode: number; details: string; hint: string; cause: unknown },
  ) {
    super(code, message, { hint: options.hint, cause: options.cause });
    this.temporary = options.temporary;
    this.grpcCode = options.grpcCode;
    this.details = options.details;
  }
}

/** What etcd says when it wants a (new) token: api/v3rpc/rpctypes/error.go. */
const TOKEN_REFUSED = /invalid auth token|user name is empty|revision of auth store is old/;

/** Whether a request with a new token may go well. */
export function wantsToken(error: unknown): boolean {
  return error instanceof EtcdError && TOKEN_REFUSED.test(error.details);
}

/** Whether a revision that was asked for is no longer kept. */
export function isCompacted(error: unknown): boolean {
  return error instanceof EtcdError && error.grpcCode === status.OUT_OF_RANGE;
}

/** grpc-js says so of an answer that is longer than a client takes, and before it has taken it. */
const TOO_LONG = /^Received message larger than max /;

/** Whether less has to be asked for at a time. */
export function isTooLong(error: unknown): boolean {
  return error instanceof EtcdError && error.grpcCode === status.RESOURCE_EXHAUSTED && TOO_LONG.test(error.details);
}

/**
 * @param attempted as in "reading the leases from etcd".
 * @param endpoint as the user gave it.
 */
export function etcdError(attempted: string, endpoint: string, error: unknown): EtcdError {
  const grpcCode = numberField(error, 'code') ?? status.UNKNOWN;
  const details = plain(textField(error, 'details') ?? (error instanceof Error ? error.message : String(error)));
  const message = `${attempted} at ${endpoint}: ${details}`;
  const failed = (code: ErrorCode, temporary: boolean, hint: string): EtcdError =>
    new EtcdError(code, message, { temporary, grpcCode, details, hint, cause: error });

  if (TOKEN_REFUSED.test(details)) {
    return failed('WEFT_ETCD_DENIED', false, 'etcd requires authentication: set --etcd-username and --etcd-password.');
  }
  switch (grpcCode) {
    case status.UNAUTHENTICATED:
    case status.INVALID_ARGUMENT:
      return failed('WEFT_ETCD_DENIED', false, 'Check --etcd-username and --etcd-password.');
    case status.PERMISSION_DENIED:
      return failed(
        'WEFT_ETCD_DENIED',
        false,
        'The etcd user (--etcd-username, or the common name of --etcd-certfile) needs a role that may read and write all keys below --etcd-prefix.',
      );
    case status.UNIMPLEMENTED:
      return failed(
        'WEFT_ETCD_DENIED',
        false,
        'The server at that address does not support etcd’s v3 API: check --etcd-endpoints.',
      );
    case status.RESOURCE_EXHAUSTED:
      return failed(
        'WEFT_STORE_UNAVAILABLE',
        // Another endpoint would answer the same.
        !TOO_LONG.test(details),
        'If etcd is out of space: compact and defragment it, then disarm its alarm (etcdctl alarm disarm).',
      );
    default:
      return failed(
        'WEFT_STORE_UNAVAILABLE',
        true,
        'Check that etcd runs, that --etcd-endpoints names it, and, for https, --etcd-cafile.',
      );
  }
}

/**
 * grpc-js fills a form, also with what it does not have (load-balancer-pick-first.ts): `No connection established. Last error:
 * Error: connect ECONNREFUSED 127.0.0.1:2379. Resolution note: `.
 */
function plain(details: string): string {
  return details
    .replace(/\s*\bResolution note:\s*$/, '')
    .replace(/\s*\bLast error: null\.?/, '')
    .replace(/\b(Last error: )(?:\w*Error: )+/, '$1')
    .replace(/\.$/, '');
}

function numberField(value: unknown, name: string): number | undefined {
  const field: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
  return typeof field === 'number' ? field : undefined;
}

function textField(value: unknown, name: string): string | undefined {
  const field: unknown = typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
  return typeof field === 'string' && field !== '' ? field : undefined;
}
