import type { Backend, ExternalInterface, IdentityHost } from '../../src/backend/backend.ts';
import { backendKind, configuredBackend, identifyBackend, openBackend } from '../../src/backend/registry.ts';
import { parseNetConf } from '../../src/config/net-conf.ts';
import { perFamily } from '../../src/ip/family.ts';
import type { JsonValue } from '../../src/lease/lease.ts';

/** A host whose links have no MAC addresses, whose random bytes are all alike, and whose programs write nothing. */
export const FAKE_IDENTITY_HOST: IdentityHost = {
  linkMac: async () => undefined,
  randomBytes: (count) => new Uint8Array(count).fill(0x42),
  runCommand: async () => ({ stdout: '', stderr: '' }),
  variable: (name) => `the value of ${name}`,
  keyFile: async (fresh) => ({ path: 'wgkey', text: fresh() }),
  tunDevices: async () => [],
  takeTun: () => true,
};

/** That of the private key which this host makes of its random bytes, as `wg pubkey` says. */
export const FAKE_PUBLIC_KEY = 'EyxEK+AQ+9V+cmAzKKp25x/MwVA6riGTJ9FNnJmT9HI=';

/** What a Backend object must have beside its type, for a backend that does not do without. */
export function requiredKeys(type: string): Readonly<Record<string, string>> {
  return type === 'ipsec' ? { PSK: 'k'.repeat(96) } : {};
}

/** The backend of a net-conf.json as the agent opens it. */
export async function openedBackend(
  netConf: string,
  external: ExternalInterface,
  identity: {
    readonly host?: IdentityHost;
    readonly before?: { ipv4: JsonValue | undefined; ipv6: JsonValue | undefined };
  } = {},
): Promise<Backend> {
  const config = parseNetConf(netConf, { source: 'test', validation: 'kube', backends: backendKind });
  const { host = FAKE_IDENTITY_HOST, before: published = perFamily(() => undefined) } = identity;
  const past = { published, networks: [] };
  const setup = await identifyBackend(configuredBackend(config), config, past, host, new AbortController().signal);
  return openBackend(setup, config, external);
}
