import { createHash, createHmac } from 'node:crypto';
import type { CloudCredentials } from '../backend/backend.ts';

const ALGORITHM = 'TC3-HMAC-SHA256';
const SIGNED_HEADERS = 'content-type;host';
export const CONTENT_TYPE = 'application/json';

/**
 * The header `Authorization` of a POST to `https://<host>/`, by Tencent Cloud's signature of version 3: content type, host and
 * body are signed, with a key of the day and the service.
 * @param atSeconds in Unix time, as the header `X-TC-Timestamp` has it.
 */
export function authorization(
  { id, secret }: CloudCredentials,
  { service, host, body, atSeconds }: { service: string; host: string; body: string; atSeconds: number },
): string {
  const date = new Date(atSeconds * 1000).toISOString().slice(0, 10);
  const scope = `${date}/${service}/tc3_request`;
  const headers = `content-type:${CONTENT_TYPE}\nhost:${host}\n`;
  const request = ['POST', '/', '', headers, SIGNED_HEADERS, sha256(body)].join('\n');
  const text = [ALGORITHM, atSeconds, scope, sha256(request)].join('\n');
  const key = [date, service, 'tc3_request'].reduce<string | Buffer>(hmac, `TC3${secret.reveal()}`);
  const signature = hmac(key, text).toString('hex');
  return `${ALGORITHM} Credential=${id.reveal()}/${scope}, SignedHeaders=${SIGNED_HEADERS}, Signature=${signature}`;
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
