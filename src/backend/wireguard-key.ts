import { createPrivateKey, createPublicKey } from 'node:crypto';
import type { WireguardKey } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { Secret } from '../secret.ts';
import type { KeyFile } from './backend.ts';

/** Keys of WireGuard: points of Curve25519 (RFC 7748), 32 bytes in base64. */

export interface WireguardKeyPair {
  readonly privateKey: Secret;
  readonly publicKey: WireguardKey;
}

/** RFC 8410: what stands before the 32 bytes of an X25519 key in PKCS #8. */
const PKCS8_HEAD = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** A private key as `wg genkey` makes it: random, with the bits that the curve wants fixed. */
export function newPrivateKey(randomBytes: (count: number) => Uint8Array): string {
  const bytes = Buffer.from(randomBytes(32));
  bytes[0] = bytes[0]! & 0xf8;
  bytes[31] = (bytes[31]! & 0x7f) | 0x40;
  return bytes.toString('base64');
}

/** @throws WeftError WEFT_KEY_FILE: the file holds something else. Its content is in no message. */
export function keyPairOf({ path, text }: KeyFile): WireguardKeyPair {
  const key = parseWireguardKey(text.trim());
  if (key === undefined) {
    throw new WeftError('WEFT_KEY_FILE', `${path} does not hold a WireGuard key: 32 bytes in base64 are expected`, {
      hint: 'weft rotate-key writes a new one.',
    });
  }
  const der = Buffer.concat([PKCS8_HEAD, Buffer.from(key, 'base64')]);
  const { x = '' } = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })).export({
    format: 'jwk',
  });
  return { privateKey: new Secret(key), publicKey: Buffer.from(x, 'base64url').toString('base64') as WireguardKey };
}

/** `undefined` for what is not 32 bytes in base64, in its one canonical form. */
export function parseWireguardKey(text: string): WireguardKey | undefined {
  const bytes = Buffer.from(text, 'base64');
  return bytes.length === 32 && bytes.toString('base64') === text ? (text as WireguardKey) : undefined;
}
