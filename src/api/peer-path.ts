/** How packets of this host reach a peer, and whether the kernel carries them, with no process of this host between. */
export const PEER_PATHS = {
  /** Past the forwarder (udp). */
  'fast-path': { inKernel: true },
  /** Through the agent's packet workers (udp). */
  forwarder: { inKernel: false },
  vxlan: { inKernel: true },
  wireguard: { inKernel: true },
  ipsec: { inKernel: true },
  ipip: { inKernel: true },
  /** A route by way of the host's own address, without encapsulation. */
  direct: { inKernel: true },
  /** By a command of the network configuration (extension): whatever that does. */
  command: { inKernel: false },
  /** By somebody else: routes of a cloud, or nothing at all (alloc). */
  others: { inKernel: false },
  /** This host cannot reach it: `reason` says why. */
  skipped: { inKernel: false },
} as const;

export type PeerPath = keyof typeof PEER_PATHS;
