import type { MethodDefinition } from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';

/**
 * The part of etcd's v3 API (api/etcdserverpb/rpc.proto, api/mvccpb/kv.proto, stable since etcd 3.0) that weft uses:
 * only these messages and fields, with etcd's numbers. It is data in a module rather than a .proto file, so that it is
 * still found when weft is bundled into one file.
 *
 * 64-bit integers are decimal strings: lease ids use all 64 bits.
 */
export type Int64 = string;

/** What etcd says of a key, without what it holds. */
export interface KeyRecord {
  readonly key: Buffer;
  readonly create_revision: Int64;
  readonly mod_revision: Int64;
  /** '0': bound to no lease, so permanent. */
  readonly lease: Int64;
}

export interface KeyValue extends KeyRecord {
  readonly value: Buffer;
}

interface ResponseHeader {
  readonly revision: Int64;
}

export interface RangeRequest {
  readonly key: Buffer;
  readonly range_end?: Buffer;
  readonly limit?: number;
  readonly revision?: Int64;
  readonly keys_only?: boolean;
  readonly min_create_revision?: Int64;
}

export interface RangeResponse {
  readonly header: ResponseHeader;
  readonly kvs: readonly KeyValue[];
  readonly more: boolean;
}

export interface PutRequest {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly lease: Int64;
}

/** `target` chooses which of the other fields is compared. */
export type Compare = { readonly key: Buffer; readonly result: 'EQUAL' } & (
  | { readonly target: 'VERSION'; readonly version: Int64 }
  | { readonly target: 'MOD'; readonly mod_revision: Int64 }
);

/** Exactly one field. */
export type RequestOp =
  | { readonly request_range: RangeRequest }
  | { readonly request_put: PutRequest }
  | { readonly request_delete_range: { readonly key: Buffer } };

export interface TxnRequest {
  readonly compare: readonly Compare[];
  readonly success: readonly RequestOp[];
  readonly failure: readonly RequestOp[];
}

export interface TxnResponse {
  readonly header: ResponseHeader;
  readonly succeeded: boolean;
  readonly responses: readonly { readonly response_range?: RangeResponse | null }[];
}

export interface WatchEvent {
  readonly type: 'PUT' | 'DELETE';
  readonly kv: KeyValue;
}

export interface WatchRequest {
  readonly create_request: {
    readonly key: Buffer;
    readonly range_end?: Buffer;
    readonly start_revision: Int64;
    readonly progress_notify: boolean;
    readonly fragment: boolean;
  };
}

export interface WatchResponse {
  readonly header: ResponseHeader;
  readonly created: boolean;
  readonly canceled: boolean;
  /** Not '0': the start revision is no longer kept, all must be read again. */
  readonly compact_revision: Int64;
  readonly cancel_reason: string;
  /** More of the same revision follows. */
  readonly fragment: boolean;
  readonly events: readonly WatchEvent[];
}

interface Methods {
  readonly Range: [RangeRequest, RangeResponse];
  readonly Txn: [TxnRequest, TxnResponse];
  readonly Watch: [WatchRequest, WatchResponse];
  readonly LeaseGrant: [{ readonly TTL: number }, { readonly ID: Int64; readonly TTL: Int64 }];
  readonly LeaseRevoke: [{ readonly ID: Int64 }, { readonly header: ResponseHeader }];
  readonly LeaseTimeToLive: [
    { readonly ID: Int64; readonly keys: boolean },
    /** TTL: seconds left, '-1' when there is no such lease. */
    { readonly TTL: Int64; readonly keys: readonly Buffer[] },
  ];
  readonly Authenticate: [{ readonly name: string; readonly password: string }, { readonly token: string }];
}

export type MethodName = keyof Methods;
export type UnaryMethodName = Exclude<MethodName, 'Watch'>;
export type RequestOf<M extends MethodName> = Methods[M][0];
export type ResponseOf<M extends MethodName> = Methods[M][1];

type Field = { id: number; type: string; rule?: 'repeated' };

/** `name: [number, type]`, with `...` before the type of a repeated field. */
function message(fields: Record<string, [number, string]>): { fields: Record<string, Field> } {
  const entries = Object.entries(fields).map(([name, [id, type]]): [string, Field] => [
    name,
    type.startsWith('...') ? { id, type: type.slice(3), rule: 'repeated' } : { id, type },
  ]);
  return { fields: Object.fromEntries(entries) };
}

const MVCC = {
  KeyValue: message({
    key: [1, 'bytes'],
    create_revision: [2, 'int64'],
    mod_revision: [3, 'int64'],
    value: [5, 'bytes'],
    lease: [6, 'int64'],
  }),
  EventType: { values: { PUT: 0, DELETE: 1 } },
  Event: message({ type: [1, 'EventType'], kv: [2, 'KeyValue'] }),
};

const MESSAGES = {
  ResponseHeader: message({ revision: [3, 'int64'] }),
  RangeRequest: message({
    key: [1, 'bytes'],
    range_end: [2, 'bytes'],
    limit: [3, 'int64'],
    revision: [4, 'int64'],
    keys_only: [8, 'bool'],
    min_create_revision: [12, 'int64'],
  }),
  RangeResponse: message({ header: [1, 'ResponseHeader'], kvs: [2, '...mvccpb.KeyValue'], more: [3, 'bool'] }),
  PutRequest: message({ key: [1, 'bytes'], value: [2, 'bytes'], lease: [3, 'int64'] }),
  DeleteRangeRequest: message({ key: [1, 'bytes'] }),
  RequestOp: {
    oneofs: { request: { oneof: ['request_range', 'request_put', 'request_delete_range'] } },
    ...message({
      request_range: [1, 'RangeRequest'],
      request_put: [2, 'PutRequest'],
      request_delete_range: [3, 'DeleteRangeRequest'],
    }),
  },
  ResponseOp: message({ response_range: [1, 'RangeResponse'] }),
  CompareResult: { values: { EQUAL: 0, GREATER: 1, LESS: 2, NOT_EQUAL: 3 } },
  CompareTarget: { values: { VERSION: 0, CREATE: 1, MOD: 2, VALUE: 3, LEASE: 4 } },
  Compare: {
    // Being in a oneof makes a field go out even when it is 0: `version = 0` is how "no such key" is asked.
    oneofs: { target_union: { oneof: ['version', 'mod_revision'] } },
    ...message({
      result: [1, 'CompareResult'],
      target: [2, 'CompareTarget'],
      key: [3, 'bytes'],
      version: [4, 'int64'],
      mod_revision: [6, 'int64'],
    }),
  },
  TxnRequest: message({ compare: [1, '...Compare'], success: [2, '...RequestOp'], failure: [3, '...RequestOp'] }),
  TxnResponse: message({ header: [1, 'ResponseHeader'], succeeded: [2, 'bool'], responses: [3, '...ResponseOp'] }),
  WatchRequest: {
    oneofs: { request_union: { oneof: ['create_request'] } },
    ...message({ create_request: [1, 'WatchCreateRequest'] }),
  },
  WatchCreateRequest: message({
    key: [1, 'bytes'],
    range_end: [2, 'bytes'],
    start_revision: [3, 'int64'],
    progress_notify: [4, 'bool'],
    fragment: [8, 'bool'],
  }),
  WatchResponse: message({
    header: [1, 'ResponseHeader'],
    created: [3, 'bool'],
    canceled: [4, 'bool'],
    compact_revision: [5, 'int64'],
    cancel_reason: [6, 'string'],
    fragment: [7, 'bool'],
    events: [11, '...mvccpb.Event'],
  }),
  LeaseGrantRequest: message({ TTL: [1, 'int64'] }),
  LeaseGrantResponse: message({ ID: [2, 'int64'], TTL: [3, 'int64'] }),
  LeaseRevokeRequest: message({ ID: [1, 'int64'] }),
  LeaseRevokeResponse: message({ header: [1, 'ResponseHeader'] }),
  LeaseTimeToLiveRequest: message({ ID: [1, 'int64'], keys: [2, 'bool'] }),
  LeaseTimeToLiveResponse: message({ TTL: [3, 'int64'], keys: [5, '...bytes'] }),
  AuthenticateRequest: message({ name: [1, 'string'], password: [2, 'string'] }),
  AuthenticateResponse: message({ token: [2, 'string'] }),
};

function unary(name: string): Record<string, { requestType: string; responseType: string }> {
  return { [name]: { requestType: `${name}Request`, responseType: `${name}Response` } };
}

const SERVICES = {
  KV: { methods: { ...unary('Range'), ...unary('Txn') } },
  Watch: {
    methods: {
      Watch: { requestType: 'WatchRequest', responseType: 'WatchResponse', requestStream: true, responseStream: true },
    },
  },
  Lease: { methods: { ...unary('LeaseGrant'), ...unary('LeaseRevoke'), ...unary('LeaseTimeToLive') } },
  Auth: { methods: { ...unary('Authenticate') } },
};

const ROOT = { nested: { mvccpb: { nested: MVCC }, etcdserverpb: { nested: { ...MESSAGES, ...SERVICES } } } };
const PACKAGES = fromJSON(ROOT as Parameters<typeof fromJSON>[0], {
  longs: String,
  enums: String,
  defaults: true,
  arrays: true,
});

/** Path and codecs of a method, for grpc.Client. */
export function methodOf<M extends MethodName>(name: M): MethodDefinition<RequestOf<M>, ResponseOf<M>> {
  for (const service of Object.keys(SERVICES)) {
    const definition = PACKAGES[`etcdserverpb.${service}`] as Record<string, unknown> | undefined;
    if (definition !== undefined && name in definition) {
      return definition[name] as MethodDefinition<RequestOf<M>, ResponseOf<M>>;
    }
  }
  throw new Error(`etcd API without ${name}`);
}
