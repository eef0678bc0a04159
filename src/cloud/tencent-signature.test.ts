import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Secret } from '../secret.ts';
import { authorization } from './tencent-signature.ts';

test('a request is signed as by the client of the cloud’s vendor', () => {
  // What tencentcloud-sdk-go v1.3.190 sent, which flannel uses.
  const credentials = { id: new Secret('AKIDEXAMPLE'), secret: new Secret('s3cr3tEXAMPLE') };
  const body = '{"Filters":[{"Name":"vpc-id","Values":["vpc-1"]}]}';
  const signed = { service: 'vpc', host: 'vpc.tencentcloudapi.com', body, atSeconds: 1_795_900_677 };
  const expected =
    'TC3-HMAC-SHA256 Credential=AKIDEXAMPLE/2026-11-28/vpc/tc3_request, SignedHeaders=content-type;host, Signature=8912146f0f99c7ce7ffe27bb03dbd3137f5c7a54d869f349b1195a49c6c048a7';
  assert.equal(authorization(credentials, signed), expected);
  for (const other of [{ body: '{}' }, { host: 'cvm.tencentcloudapi.com' }, { atSeconds: 1_795_900_678 }])
    assert.notEqual(authorization(credentials, { ...signed, ...other }), expected);
});
