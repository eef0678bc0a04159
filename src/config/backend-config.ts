import { FAMILIES, type FamilyKey } from '../ip/family.ts';
import { type BackendKeyTable, type BackendReading, readBackendKeys } from './backend-keys.ts';
import type { BackendConfig } from './network-config.ts';

/** What net-conf.json and the stores must know of a backend. Each says it of itself, in its file of src/backend/. */
export interface BackendTraits {
  /** `Backend.Type` in lower case. */
  readonly type: string;
  /** The families of the packets that it carries: nothing else says this of it. */
  readonly families: readonly FamilyKey[];
  /** Its keys in net-conf.json. */
  readonly keys: BackendKeyTable;
  /** Sends its whole network through one device, and with a Network of 0.0.0.0/0 the host's default route. */
  readonly routesWholeNetwork?: boolean;
  /** Has no use for the leases of other hosts. */
  readonly ignoresPeers?: boolean;
  /** From values that `keys` has accepted, what the backend works with; nobody else looks inside. */
  parse(values: object): unknown;
}

/** The backend of a (lower-cased) name. The table itself is above: src/backend/registry.ts. */
export type BackendLookup = (type: string) => BackendTraits | undefined;

export interface BackendConfigReading extends Pick<BackendReading<BackendKeyTable>, 'problems' | 'ignoredKeys'> {
  /** Of use only without problems. */
  readonly config: BackendConfig;
}

/** Reads the Backend object, once for all who want something of it. A type that nobody knows is no problem here. */
export function readBackendConfig(
  type: string,
  written: BackendConfig['written'],
  lookup: BackendLookup,
  path?: string,
): BackendConfigReading {
  const traits = lookup(type);
  const { values, problems, ignoredKeys } =
    traits === undefined ? { values: {}, problems: [], ignoredKeys: [] } : readBackendKeys(written, traits.keys, path);
  const { families = FAMILIES.map(({ key }) => key), routesWholeNetwork = false, ignoresPeers = false } = traits ?? {};
  const settings = problems.length > 0 ? undefined : traits?.parse(values);
  return {
    config: Object.freeze({ type, written, families, routesWholeNetwork, ignoresPeers, settings }),
    problems,
    ignoredKeys,
  };
}
