import type { MetricsSnapshot, PacketFigures } from '../../src/metrics/snapshot.ts';

const QUIET: PacketFigures = { packets: 0, bytes: 0, drops: {} };
export const BUILD = { version: '1.2.3', backend: 'udp', subnetManager: 'etcd' };

/** Every metric has a series. Not a healthy host: each figure differs from its neighbours, for tests that compare. */
export const ALL_PARTS: MetricsSnapshot = {
  build: BUILD,
  ready: true,
  configOutdated: true,
  failures: { kernel: true, rules: false },
  droppedLogLines: 3,
  leases: {
    peers: 2,
    refused: { 'overlaps-own': 1 },
    events: { set: 3, removed: 1 },
    ownExpiresAtMs: 1_700_000_000_500,
  },
  skippedPeers: 5,
  store: {
    ...{ reachable: false, failure: 'connect ECONNREFUSED', errors: 4, unreadableEntries: 1 },
    lastSuccessAtMs: 1_600_000_000_000,
  },
  hostDrops: { 'filtered-in': 6 },
  hostDrops6: { 'too-big': 2 },
  queueDrops: { device: 4, socket: 0 },
  forwarder: {
    running: true,
    fastPath: true,
    fastPathObstacle: 'ipsec-policy',
    fastPathPeersAlone: 2,
    refusedSenders: { 'unknown-source': 2 },
    restarts: 1,
    published: { times: 4, lastAtMs: 1_700_000_000_500 },
    nobody: { tx: { ...QUIET, drops: { 'no-route': 7 } }, rx: QUIET },
    operations: { txSends: 11 },
    peers: [
      {
        peer: '10.244.1.0/24',
        tx: { packets: 5, bytes: 500, drops: { 'too-big': 2 } },
        rx: { packets: 6, bytes: 600, drops: {} },
      },
      { peer: '10.244.2.0/24', tx: QUIET, rx: QUIET },
    ],
  },
  kernel: {
    runs: 9,
    operations: { 'route-add': 3 },
    repairs: { 'route-add': 1 },
    failures: 0,
    problems: 0,
    converged: true,
  },
  wireguard: [
    {
      ...{ device: 'flannel-wg', peer: '10.244.1.0/24', lastHandshakeAtMs: 1_700_000_009_000 },
      ...{ sentBytes: 148, receivedBytes: 92 },
    },
    {
      ...{ device: 'flannel-wg', peer: '10.244.2.0/24', lastHandshakeAtMs: undefined },
      ...{ sentBytes: 0, receivedBytes: 0 },
    },
  ],
  ipsec: [
    { peer: '10.244.1.0/24', isUp: true, sentBytes: 84, receivedBytes: 168 },
    { peer: '10.244.2.0/24', isUp: false, sentBytes: 0, receivedBytes: 0 },
  ],
  traffic: { checks: 20, failures: 0, repairs: { missing: 0, order: 2 }, lastSuccessAtMs: 1_600_000_001_000 },
  probes: {
    sent: 17,
    paths: [
      {
        ...{
          id: '10.244.1.0/24',
          rttMs: { median: 2, p99: 5 },
          underlayRttMs: 1,
          lossRatio: 0.25,
          pathMtuBytes: 1_400,
        },
        ...{ mtuBytes: 1_472, isHeard: true, refusal: undefined, measuredAtMs: 9, lastAnswerAtMs: 8 },
        passes: {
          ...{ small: 'yes', full: 'no', fragments: 'unknown', underlay: 'yes', 'underlay-full': 'yes' },
          ...{ udp: 'yes', 'udp-plain': 'yes' },
        },
        kinds: ['small'],
        diagnosis: { fault: 'lossy', cause: 'packets are lost', remedy: 'look' },
      },
    ],
  },
  hooks: { 'subnet-add': { succeeded: 4, failed: 1 } },
};
