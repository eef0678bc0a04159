import { join } from 'node:path';
import * as v from 'valibot';
import { WeftError } from '../errors.ts';
import type { Lease } from '../lease/lease.ts';
import { decodeLeaseValue, parseEtcdLeaseKey } from '../lease/lease-codec.ts';
import { mapLimit } from './map-limit.ts';
import { EtcdServer, type EtcdTls } from './servers/etcd-server.ts';
import { storePlace } from './store-place.ts';
import type { SubnetStore } from './subnet-store.ts';
import type { Topology } from './topology.ts';

const PREFIX = '/coreos.com/network';
/** `etcdctl` processes at a time. */
const ASKING = 4;

export interface EtcdStore extends SubnetStore {
  readonly server: EtcdServer;
}

/** An etcd of one member. `tls`: with a certificate for its address. */
export async function openEtcdStore(
  topology: Topology,
  netConf: string,
  signal: AbortSignal,
  tls?: EtcdTls,
): Promise<EtcdStore> {
  const { place, station } = storePlace(topology);
  const server = await EtcdServer.start({
    ...{ ...place, directory: join(station.stateDirectory, 'etcd') },
    ...(tls === undefined ? {} : { tls }),
  });
  const { stdout } = await topology.exec(station, ['etcd', '--version'], { signal });
  const version = /^etcd Version: (\S+)$/m.exec(stdout)?.[1] ?? null;
  await server.etcdctl('put', `${PREFIX}/config`, netConf);
  const endpoint = server.endpoints.join(',');
  const etcdctl = `ip netns exec ${station.namespace} env ETCDCTL_API=3 etcdctl --endpoints ${endpoint}${tls === undefined ? '' : ` --cacert ${tls.caFile}`}`;
  return {
    server,
    kind: 'etcd',
    description: `${version ?? ''} at ${endpoint}, in the namespace ${station.namespace}`.trimStart(),
    result: {
      kind: 'etcd',
      endpoint,
      version,
      commands: [
        { what: 'leases in etcd', command: `${etcdctl} get --prefix ${PREFIX}/subnets` },
        { what: 'the same, as they change', command: `${etcdctl} watch --prefix ${PREFIX}/subnets` },
        {
          what: 'delete all leases: they come back',
          command: `${etcdctl} del --prefix ${PREFIX}/subnets; sleep 1; ${etcdctl} get --prefix ${PREFIX}/subnets`,
        },
      ],
    },
    agentFlags: () => ['--etcd-endpoints', endpoint, ...(tls === undefined ? [] : ['--etcd-cafile', tls.caFile])],
    agentEnvironment: () => ({}),
    leases: () => readLeases(server),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

const base64 = v.pipe(
  v.string(),
  v.transform((text) => Buffer.from(text, 'base64').toString('utf8')),
);
const listSchema = v.object({
  kvs: v.optional(v.array(v.object({ key: base64, value: base64, lease: v.optional(v.string(), '0') })), []),
});
const timeToLiveSchema = v.object({ ttl: v.number() });

/** Through etcdctl and not through the agents' own client: what it says is a second opinion. */
async function readLeases(server: EtcdServer): Promise<Lease[]> {
  const text = await server.etcdctl('get', '--prefix', `${PREFIX}/subnets/`, '--write-out=json');
  const { kvs } = v.parse(listSchema, JSON.parse(quoteLeaseIds(text)));
  return await mapLimit(kvs, ASKING, async ({ key, value, lease }): Promise<Lease> => {
    const subnets = parseEtcdLeaseKey(key);
    const decoded = decodeLeaseValue(value);
    if (subnets === undefined || !decoded.ok) {
      throw new WeftError('WEFT_LAB_FAILED', `etcd has an unreadable lease ${key} = ${value}`);
    }
    const expiresAtMs = lease === '0' ? undefined : Date.now() + (await remainingMs(server, lease));
    return { subnets, attrs: decoded.attrs, expiresAtMs };
  });
}

/** Lease ids use 64 bits, and JSON.parse keeps 53 of a number. */
function quoteLeaseIds(json: string): string {
  return json.replaceAll(/"(lease|id|ID)":(-?\d+)/g, '"$1":"$2"');
}

async function remainingMs(server: EtcdServer, leaseId: string): Promise<number> {
  const text = await server.etcdctl('lease', 'timetolive', BigInt(leaseId).toString(16), '--write-out=json');
  return v.parse(timeToLiveSchema, JSON.parse(quoteLeaseIds(text))).ttl * 1_000;
}
