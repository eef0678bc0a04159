import { isDeepStrictEqual } from 'node:util';
import { Claims } from './claims.ts';
import {
  EMPTY_WANTED_STATE,
  type FdbEntry,
  fdbKey,
  type IpsecPolicy,
  type Neighbour,
  neighbourKey,
  type PeerState,
  policyKey,
  type Route,
  routeKey,
  type WantedState,
  type WireguardPeer,
  wayKey,
  wireguardPeerKey,
} from './state.ts';

/** Keys of what has changed since they were last taken. */
export interface ChangedKeys {
  readonly routes: Set<string>;
  readonly neighbours: Set<string>;
  readonly fdb: Set<string>;
  readonly wireguard: Set<string>;
  readonly policies: Set<string>;
}

/** The owner of what the host's own part wants; no lease has this key. */
const HOST = '';
const NOTHING: PeerState = { routes: [], neighbours: [], fdb: [] };

/**
 * What is wanted of the kernel, in parts: the host's own, and one for each peer. It is indexed by the keys that the kernel
 * tells entries apart by, and remembers which of them have changed, so that one changed peer costs that peer's work.
 */
export class Wanted {
  readonly changed: ChangedKeys = {
    ...{ routes: new Set(), neighbours: new Set(), fdb: new Set() },
    ...{ wireguard: new Set(), policies: new Set() },
  };
  readonly routes = new Claims<Route>(routeKey, this.changed.routes);
  readonly neighbours = new Claims<Neighbour>(neighbourKey, this.changed.neighbours);
  readonly fdb = new Claims<FdbEntry>(fdbKey, this.changed.fdb);
  readonly wireguard = new Claims<WireguardPeer>(wireguardPeerKey, this.changed.wireguard);
  readonly policies = new Claims<IpsecPolicy>(policyKey, this.changed.policies);
  readonly #peers = new Set<string>();
  #host: WantedState = EMPTY_WANTED_STATE;
  #formerRoutes: ReadonlySet<string> = new Set();
  #isAllDue = false;

  static of(state: WantedState): Wanted {
    const wanted = new Wanted();
    wanted.setHost(state);
    return wanted;
  }

  /** The host's own part, as given. */
  get host(): WantedState {
    return this.#host;
  }

  get peers(): ReadonlySet<string> {
    return this.#peers;
  }

  /** Those of the host's part, by {@link wayKey}. */
  get formerRoutes(): ReadonlySet<string> {
    return this.#formerRoutes;
  }

  /** Whether what nobody wants may have to go now, and not only what has changed. */
  get isAllDue(): boolean {
    return this.#isAllDue;
  }

  /** @returns whether links, addresses, sysctls, networks or `staleRoutes` differ: then nothing read of the kernel before is enough. */
  setHost(host: WantedState): boolean {
    const before = this.#host;
    this.#host = host;
    if (before.isPartial === true && host.isPartial !== true) this.#isAllDue = true;
    if (before.formerRoutes !== host.formerRoutes) {
      this.#formerRoutes = new Set(host.formerRoutes?.map(wayKey));
      this.#isAllDue = true;
    }
    this.#claim(HOST, host);
    return !isDeepStrictEqual(foundation(before), foundation(host));
  }

  /** `undefined` takes the peer's part away. */
  setPeer(key: string, part: PeerState | undefined): void {
    if (part === undefined) this.#peers.delete(key);
    else this.#peers.add(key);
    this.#claim(key, part ?? NOTHING);
  }

  hasChanges(): boolean {
    return this.#isAllDue || Object.values(this.changed).some(({ size }) => size > 0);
  }

  forgetChanges(): void {
    this.#isAllDue = false;
    for (const keys of Object.values(this.changed)) keys.clear();
  }

  #claim(owner: string, part: PeerState): void {
    this.routes.set(owner, part.routes);
    this.neighbours.set(owner, part.neighbours);
    this.fdb.set(owner, part.fdb);
    this.wireguard.set(owner, part.wireguard ?? []);
    this.policies.set(owner, part.policies ?? []);
  }
}

function foundation({ links, absentLinks, addresses, sysctls, networks, staleRoutes }: WantedState): unknown {
  return { links, absentLinks, addresses, sysctls, networks, staleRoutes };
}
