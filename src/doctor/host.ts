import type { NeededProgram } from '../backend/backend.ts';
import type { FirewallText } from '../trafficmngr/forward-drops.ts';

/** What the checks see of a host. The answers are those of the moment; asking changes nothing. */
export interface DoctorHost {
  /** Whether this is a container of Kubernetes. */
  readonly inPod: boolean;
  /** `undefined` when there is no such file. @throws when it cannot be read. */
  readonly readText: (path: string) => Promise<string | undefined>;
  /** `undefined` when there is no such file. */
  readonly modifiedAt: (path: string) => Promise<Date | undefined>;
  /** Opens for reading and writing, and closes: the name of the error, or `undefined`. */
  readonly openError: (path: string) => Promise<string | undefined>;
  readonly hasCapability: (name: 'CAP_NET_ADMIN' | 'CAP_NET_RAW') => boolean;
  /** Tries what the fast path needs, on no device: why it could not be here, or `undefined`. */
  readonly fastPathObstacle: () => string | undefined;
  readonly links: (signal: AbortSignal) => Promise<readonly HostLink[]>;
  /** Of both families, IPv4 first, table main. */
  readonly routes: (signal: AbortSignal) => Promise<readonly HostRoute[]>;
  /** The first line that the program prints about itself; `undefined` when it is in no folder of PATH, nor in those. */
  readonly versionOf: (
    program: Pick<NeededProgram, 'name' | 'folders'>,
    signal: AbortSignal,
  ) => Promise<string | undefined>;
  /** Programs that are not there say nothing. */
  readonly firewall: (signal: AbortSignal) => Promise<FirewallText>;
  /** IPsec policies of this host; `undefined` when the kernel does not say. */
  readonly ipsecPolicies: () => number | undefined;
  /** Who listens on a UDP port of this host: `pid 17 (flanneld)`. */
  readonly udpPortHolders: (port: number) => readonly string[];
  /** Of a port of 127.0.0.1; `undefined` when nobody listens there. */
  readonly get: (
    port: number,
    path: string,
    signal: AbortSignal,
  ) => Promise<{ readonly status: number; readonly body: string } | undefined>;
}

export interface HostLink {
  readonly name: string;
  readonly alias?: string | undefined;
  readonly mtuBytes: number;
  readonly up: boolean;
  /** With their length: `10.244.1.1/24`; those of IPv6 without the link-local ones. */
  readonly addresses: readonly string[];
}

export interface HostRoute {
  /** `default` or CIDR notation. */
  readonly dst: string;
  readonly dev: string | undefined;
  readonly via?: string | undefined;
  /** The number of who has made it (rtnetlink's rtm_protocol); `undefined`: that one gave none. */
  readonly protocol?: number | undefined;
}

/** Where things are on this host; the agent's flags of the same names. */
export interface DoctorPaths {
  readonly subnetFile: string;
  readonly netConfigPath: string;
  readonly cniBinDir: string;
  readonly cniConfDir: string;
  readonly cniConfTemplate: string;
  readonly healthzPort: number;
}
