import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { inspect } from 'node:util';
import { FakeVpc } from '../../test/fakes/fake-vpc.ts';
import type { CloudRoute } from '../backend/backend.ts';
import { WeftError } from '../errors.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import { Secret } from '../secret.ts';
import { setVpcRoute } from './tencent-vpc-route.ts';

const { signal } = new AbortController();
const CREDENTIALS = { id: new Secret('AKIDthe-id'), secret: new Secret('the-secret-key') };
const ROUTE: CloudRoute = {
  ...{ subnet: parsePrefix4('10.244.1.0/24')!, gateway: parseIpv4('192.168.77.1')! },
  ...{ network: parsePrefix4('10.244.0.0/16')!, credentials: CREDENTIALS },
};

const destinations = ({ routes }: FakeVpc): string[] => routes.map((route) => route.DestinationCidrBlock);

/** The error, of which nothing that people may see has the credentials. */
async function refused(work: Promise<unknown>): Promise<WeftError> {
  const error = await work.then(
    () => assert.fail('it was not refused'),
    (reason: unknown) => reason,
  );
  assert(error instanceof WeftError);
  assert.equal(error.code, 'WEFT_CLOUD_API');
  assert.doesNotMatch(inspect(error, { depth: 9 }) + error.hint + error.stack, /AKIDthe-id|the-secret-key/);
  return error;
}

describe('the route to a host in a VPC of Tencent Cloud', () => {
  it('is made once, by signed requests', async () => {
    await using vpc = await FakeVpc.start(CREDENTIALS);
    const made = await setVpcRoute(ROUTE, signal, vpc.endpoints);
    assert.equal(made, 'Route table rtb-1 of vpc-1a2b3c4d now has a route to 10.244.1.0/24 via 192.168.77.1');
    const filters = [{ Name: 'vpc-id', Values: ['vpc-1a2b3c4d'] }];
    const route = { DestinationCidrBlock: '10.244.1.0/24', GatewayType: 'NORMAL_CVM', GatewayId: '192.168.77.1' };
    assert.deepEqual(vpc.asked, [
      { action: 'DescribeRouteTables', region: 'ap-guangzhou', parameters: { Filters: filters } },
      {
        ...{ action: 'CreateRoutes', region: 'ap-guangzhou' },
        parameters: { RouteTableId: 'rtb-1', Routes: [{ ...route, Enabled: true }] },
      },
    ]);
    assert.match(await setVpcRoute(ROUTE, signal, vpc.endpoints), /leads to 10\.244\.1\.0\/24 already$/);
    assert.deepEqual(destinations(vpc), ['10.244.1.0/24']);
  });

  it('takes the place of one that is switched off, and of this host’s former subnets', async () => {
    await using vpc = await FakeVpc.start(CREDENTIALS);
    vpc.add({ Enabled: false });
    vpc.add({ DestinationCidrBlock: '10.244.9.0/24' });
    assert.match(await setVpcRoute(ROUTE, signal, vpc.endpoints), /removed 10\.244\.1\.0\/24, 10\.244\.9\.0\/24$/);
    assert.deepEqual(
      vpc.routes.map(({ DestinationCidrBlock, Enabled }) => [DestinationCidrBlock, Enabled]),
      [['10.244.1.0/24', true]],
    );
  });

  it('leaves the routes of other hosts, other networks, other gateways and the cloud itself alone', async () => {
    await using vpc = await FakeVpc.start(CREDENTIALS);
    vpc.add({ DestinationCidrBlock: '10.244.2.0/24', GatewayId: '192.168.77.2' });
    vpc.add({ DestinationCidrBlock: '10.99.0.0/24' });
    vpc.add({ DestinationCidrBlock: '10.244.3.0/24', GatewayType: 'NAT' });
    vpc.add({ DestinationCidrBlock: '10.244.4.0/24', RouteType: 'CCN' });
    await setVpcRoute(ROUTE, signal, vpc.endpoints);
    assert.deepEqual(destinations(vpc), [
      ...['10.244.2.0/24', '10.99.0.0/24', '10.244.3.0/24', '10.244.4.0/24', '10.244.1.0/24'],
    ]);
  });

  it('is refused when the table is full, with what to do', async () => {
    await using vpc = await FakeVpc.start(CREDENTIALS);
    for (let host = 2; host < 52; host++)
      vpc.add({ DestinationCidrBlock: `10.244.${host}.0/24`, GatewayId: `192.168.77.${host}` });
    const error = await refused(setVpcRoute(ROUTE, signal, vpc.endpoints));
    assert.match(error.message, /^CreateRoutes of .*: LimitExceeded: too many routes$/);
    assert.match(error.hint ?? '', /holds 50 routes .* such as vxlan/);
  });

  it('is refused with another key, and no error has one', async () => {
    await using vpc = await FakeVpc.start({ ...CREDENTIALS, secret: new Secret('another') });
    const error = await refused(setVpcRoute(ROUTE, signal, vpc.endpoints));
    assert.match(error.message, /AuthFailure\.SignatureFailure: the secret of \[secret\] gives another signature/);
    assert.match(error.hint ?? '', /access key/);
    assert.deepEqual(vpc.asked, []);
  });

  it('says what is missing: the cloud, or a route table', async () => {
    await using vpc = await FakeVpc.start(CREDENTIALS);
    vpc.hasTable = false;
    assert.match((await refused(setVpcRoute(ROUTE, signal, vpc.endpoints))).message, /no suitable routing table found/);
    const gone = await FakeVpc.start(CREDENTIALS);
    const { endpoints } = gone;
    await gone[Symbol.asyncDispose]();
    assert.match((await refused(setVpcRoute(ROUTE, signal, endpoints))).message, /placement\/region: .*ECONNREFUSED/);
  });

  it('ends with the signal', async () => {
    await using vpc = await FakeVpc.start(CREDENTIALS);
    const stopped = AbortSignal.abort(new Error('told to'));
    await assert.rejects(setVpcRoute(ROUTE, stopped, vpc.endpoints), { message: 'told to' });
  });
});
