import type { CloudCredentials } from '../backend/backend.ts';
import { describeError, WeftError } from '../errors.ts';
import { authorization, CONTENT_TYPE } from './tencent-signature.ts';

/** Where Tencent Cloud is; others for tests. */
export interface TencentEndpoints {
  /** Tells a machine about itself; without credentials, and reached from inside the cloud alone. */
  readonly metadata: string;
  readonly vpc: string;
}

export const TENCENT_ENDPOINTS: TencentEndpoints = {
  metadata: 'http://metadata.tencentyun.com',
  vpc: 'https://vpc.tencentcloudapi.com',
};

/** A route of a route table, as far as it matters here. */
export interface VpcRoute {
  readonly id: number;
  readonly destination: string;
  readonly gatewayType: string;
  readonly gateway: string;
  readonly type: string;
  readonly isEnabled: boolean;
}

export interface VpcRouteTable {
  readonly id: string;
  readonly routes: readonly VpcRoute[];
}

const VERSION = '2017-03-12';
const TIMEOUT_MS = 10_000;
/** What a table may hold unless the quota was raised. */
const DEFAULT_ROUTE_LIMIT = 50;

/** The part of Tencent Cloud's API that deals with routes. Credentials are in no error that it throws. */
export class TencentVpcApi {
  readonly #credentials: CloudCredentials;
  readonly #endpoints: TencentEndpoints;

  constructor(credentials: CloudCredentials, endpoints: TencentEndpoints) {
    this.#credentials = credentials;
    this.#endpoints = endpoints;
  }

  /** @throws WeftError WEFT_CLOUD_API */
  async metadata(path: string, form: RegExp, signal: AbortSignal): Promise<string> {
    const url = `${this.#endpoints.metadata}/latest/meta-data/${path}`;
    const { status, text } = await this.#ask(url, {}, signal);
    const value = text.trim();
    if (status === 200 && form.test(value)) return value;
    throw new WeftError('WEFT_CLOUD_API', `reading ${url}: status ${status}, ${JSON.stringify(text.slice(0, 100))}`, {
      hint: 'The tencent-vpc backend works only on Tencent Cloud machines, where this address exists.',
    });
  }

  /** The tables of a VPC, the default one first. @throws WeftError WEFT_CLOUD_API */
  async routeTables(region: string, vpc: string, signal: AbortSignal): Promise<readonly VpcRouteTable[]> {
    const filters = { Filters: [{ Name: 'vpc-id', Values: [vpc] }] };
    const { RouteTableSet: tables } = await this.#call('DescribeRouteTables', region, filters, signal);
    return listOf(tables).map((table) => ({
      id: String(table.RouteTableId),
      routes: listOf(table.RouteSet).map((route) => ({
        id: Number(route.RouteId),
        destination: String(route.DestinationCidrBlock),
        gatewayType: String(route.GatewayType),
        gateway: String(route.GatewayId),
        type: String(route.RouteType),
        isEnabled: route.Enabled === true,
      })),
    }));
  }

  /** @throws WeftError WEFT_CLOUD_API */
  async createRoute(
    region: string,
    table: string,
    route: Pick<VpcRoute, 'destination' | 'gatewayType' | 'gateway'>,
    signal: AbortSignal,
  ): Promise<void> {
    const { destination, gatewayType, gateway } = route;
    const wanted = {
      ...{ DestinationCidrBlock: destination, GatewayType: gatewayType, GatewayId: gateway, Enabled: true },
    };
    await this.#call('CreateRoutes', region, { RouteTableId: table, Routes: [wanted] }, signal);
  }

  /** @throws WeftError WEFT_CLOUD_API */
  async deleteRoute(region: string, table: string, id: number, signal: AbortSignal): Promise<void> {
    await this.#call('DeleteRoutes', region, { RouteTableId: table, Routes: [{ RouteId: id }] }, signal);
  }

  async #call(action: string, region: string, parameters: object, signal: AbortSignal): Promise<JsonObject> {
    const { vpc } = this.#endpoints;
    const body = JSON.stringify(parameters);
    const atSeconds = Math.floor(Date.now() / 1000);
    const { host } = new URL(vpc);
    const headers = {
      'content-type': CONTENT_TYPE,
      'x-tc-action': action,
      'x-tc-version': VERSION,
      'x-tc-timestamp': String(atSeconds),
      'x-tc-region': region,
      'x-tc-language': 'en-US',
      authorization: authorization(this.#credentials, { service: 'vpc', host, body, atSeconds }),
    };
    const { status, text } = await this.#ask(vpc, { method: 'POST', headers, body }, signal);
    const { Response: response } = objectOf(parsed(text));
    const { Error: refusal } = objectOf(response);
    if (refusal === undefined && status === 200 && response !== undefined) return objectOf(response);
    const { Code: code, Message: message } = objectOf(refusal);
    const said = refusal === undefined ? `status ${status}` : `${String(code)}: ${String(message)}`;
    throw new WeftError('WEFT_CLOUD_API', this.#redacted(`${action} of ${host}: ${said}`), { hint: hintOf(code) });
  }

  async #ask(url: string, init: RequestInit, signal: AbortSignal): Promise<{ status: number; text: string }> {
    try {
      const patience = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
      // A redirect would take the signed request to somebody else.
      const response = await fetch(url, { ...init, redirect: 'error', signal: patience });
      return { status: response.status, text: await response.text() };
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof Error && error.cause !== undefined ? error.cause : error;
      throw new WeftError('WEFT_CLOUD_API', this.#redacted(`asking ${url}: ${describeError(reason)}`), {
        hint: 'Check that this host reaches the address.',
      });
    }
  }

  #redacted(text: string): string {
    const { id, secret } = this.#credentials;
    return text.replaceAll(secret.reveal(), '[secret]').replaceAll(id.reveal(), '[secret]');
  }
}

function hintOf(code: unknown): string {
  if (typeof code === 'string' && code.startsWith('LimitExceeded')) {
    return `A route table holds ${DEFAULT_ROUTE_LIMIT} routes unless its quota was raised, one for each host: remove routes of hosts that are gone, have the quota raised, or choose another backend, such as vxlan.`;
  }
  if (typeof code === 'string' && /^(AuthFailure|UnauthorizedOperation)/.test(code)) {
    return 'Check the access key, and that it may call DescribeRouteTables, CreateRoutes and DeleteRoutes; and the clock of this host.';
  }
  return 'This message comes from Tencent Cloud.';
}

type JsonObject = { readonly [key: string]: unknown };

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Of anything else an object without members. */
function objectOf(value: unknown): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

function listOf(value: unknown): readonly JsonObject[] {
  return Array.isArray(value) ? value.map(objectOf) : [];
}
