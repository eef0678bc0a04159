import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { CloudCredentials } from '../../src/backend/backend.ts';
import { authorization } from '../../src/cloud/tencent-signature.ts';
import type { TencentEndpoints } from '../../src/cloud/tencent-vpc-api.ts';

export interface FakeRoute {
  RouteId: number;
  DestinationCidrBlock: string;
  GatewayType: string;
  GatewayId: string;
  RouteType: string;
  Enabled: boolean;
}

interface Asked {
  readonly action: string;
  readonly region: string | undefined;
  readonly parameters: Record<string, unknown>;
}

/** Metadata and routes of one VPC of Tencent Cloud, whose only table holds so many routes; requests must be signed. */
export class FakeVpc implements AsyncDisposable {
  readonly routes: FakeRoute[] = [];
  readonly asked: Asked[] = [];
  hasTable = true;
  limit = 50;
  readonly #server: Server;
  readonly #credentials: CloudCredentials;
  #nextId = 1;

  private constructor(credentials: CloudCredentials) {
    this.#credentials = credentials;
    this.#server = createServer((request, response) => {
      void this.#answer(request).then(({ status, body }) => {
        response.writeHead(status).end(body);
      });
    });
  }

  static async start(credentials: CloudCredentials): Promise<FakeVpc> {
    const fake = new FakeVpc(credentials);
    fake.#server.listen(0, '127.0.0.1');
    await once(fake.#server, 'listening');
    return fake;
  }

  get endpoints(): TencentEndpoints {
    const url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return { metadata: url, vpc: url };
  }

  add(route: Partial<FakeRoute>): void {
    this.routes.push({
      ...{ RouteId: this.#nextId++, DestinationCidrBlock: '10.244.1.0/24', GatewayType: 'NORMAL_CVM' },
      ...{ GatewayId: '192.168.77.1', RouteType: 'USER', Enabled: true },
      ...route,
    });
  }

  async #answer(request: IncomingMessage): Promise<{ status: number; body: string }> {
    if (request.method === 'GET') return metadata(request.url ?? '');
    const body = await text(request);
    const { 'x-tc-action': action, 'x-tc-region': region, 'x-tc-timestamp': timestamp } = request.headers;
    const signed = authorization(this.#credentials, {
      ...{ service: 'vpc', host: request.headers.host ?? '', body, atSeconds: Number(timestamp) },
    });
    if (request.headers.authorization !== signed) {
      const id = /Credential=([^/]*)/.exec(request.headers.authorization ?? '')?.[1];
      return refusal('AuthFailure.SignatureFailure', `the secret of ${id} gives another signature`);
    }
    const parameters = JSON.parse(body) as Record<string, unknown>;
    this.asked.push({ action: String(action), region: region === undefined ? undefined : String(region), parameters });
    return this.#do(String(action), parameters);
  }

  #do(action: string, parameters: Record<string, unknown>): { status: number; body: string } {
    const routes = (parameters.Routes ?? []) as FakeRoute[];
    switch (action) {
      case 'DescribeRouteTables': {
        const table = { RouteTableId: 'rtb-1', RouteSet: this.routes };
        return done({ TotalCount: 1, RouteTableSet: this.hasTable ? [table] : [] });
      }
      case 'CreateRoutes':
        if (this.routes.length + routes.length > this.limit) return refusal('LimitExceeded', 'too many routes');
        for (const route of routes) this.add({ ...route, RouteType: 'USER' });
        return done({});
      case 'DeleteRoutes':
        for (const { RouteId } of routes) {
          this.routes.splice(
            this.routes.findIndex((route) => route.RouteId === RouteId),
            1,
          );
        }
        return done({});
      default:
        return refusal('InvalidAction', action);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

function metadata(path: string): { status: number; body: string } {
  const base = '/latest/meta-data/';
  const values: Readonly<Record<string, string>> = {
    [`${base}placement/region`]: 'ap-guangzhou',
    [`${base}mac`]: '52:54:00:AB:CD:EF\n',
    [`${base}network/interfaces/macs/52:54:00:AB:CD:EF/vpc-id`]: 'vpc-1a2b3c4d',
  };
  const body = values[path];
  return body === undefined ? { status: 404, body: 'not found' } : { status: 200, body };
}

function done(response: object): { status: number; body: string } {
  return { status: 200, body: JSON.stringify({ Response: { ...response, RequestId: 'r-1' } }) };
}

/** Refusals have status 200, too. */
function refusal(code: string, message: string): { status: number; body: string } {
  return done({ Error: { Code: code, Message: message } });
}
