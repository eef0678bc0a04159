import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import type { AgentHost } from '../../agent/ports.ts';
import { setVpcRoute } from '../../cloud/tencent-vpc-route.ts';
import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import { hasErrno } from '../../errno.ts';
import { Charon } from '../../linux/charon.ts';
import { probeChecksum } from '../../linux/checksum-probe.ts';
import { Connections } from '../../linux/connections.ts';
import { endFastPath } from '../../linux/fast-path/kept-tables.ts';
import { FirewallReader } from '../../linux/firewall-text.ts';
import type { HandOver } from '../../linux/hand-over.ts';
import { readHostDrops, readHostDrops6 } from '../../linux/host-drops.ts';
import { identityHost } from '../../linux/identity-host.ts';
import { readAddresses, readHostNetwork } from '../../linux/interfaces.ts';
import { iproute2Kernel } from '../../linux/iproute2.ts';
import { IptablesTrafficManager } from '../../linux/iptables.ts';
import { concernsExternal, concernsReach, IpMonitor } from '../../linux/link-monitor.ts';
import { NftablesTrafficManager } from '../../linux/nftables.ts';
import { OuterFilters } from '../../linux/outer-filters.ts';
import type { PacketDescriptors } from '../../linux/packet-descriptors.ts';
import { describeSendErrno, openProbeSocket } from '../../linux/probe-socket.ts';
import { releaseIdleMemory } from '../../linux/process-memory.ts';
import { readDeviceDrops } from '../../linux/queue-drops.ts';
import { systemdNotifier } from '../../linux/systemd-notify.ts';
import { TunHolder } from '../../linux/tun-holder.ts';
import { collectGarbage } from '../../runtime-flags.ts';
import { VERSION } from '../version.ts';
import { hostForwarder } from './open-forwarder.ts';
import { serveApi } from './serve-api.ts';
import { createSubnetManager } from './subnet-managers.ts';

/**
 * This host, as the agent's life is to see it; the only place that makes its adapters.
 * @param onLost told when the kernel's changes are not heard of for a while.
 */
export function thisHost(
  options: FlanneldOptions,
  descriptors: PacketDescriptors,
  handOver: HandOver,
  onLost: (text: string) => void,
): AgentHost {
  const monitor = new IpMonitor({ about: 'interfaces', onLost });
  const tun = new TunHolder(descriptors);
  const firewall = new FirewallReader(readText);
  return {
    version: VERSION,
    hostName: hostname(),
    serveApi: (inspection, onProblem, signal) => serveApi(options, inspection, onProblem, signal),
    examine: async (signal) => {
      // Most agents never are: the checks are memory on every node.
      const { examineAgentsHost } = await import('../weft/examine-host.ts');
      const results = await examineAgentsHost(options, signal);
      return results.map(({ name, looksAt, found, ...rest }) => ({
        ...{ name, looksAt, found, status: rest.status },
        ...(rest.status !== 'ok' && { remedy: rest.remedy }),
      }));
    },
    openStore: (report, signal) => createSubnetManager(options, report, signal),
    readNetwork: readHostNetwork,
    readAddresses,
    externalNotices: (present, signal) => monitor.changes((line) => concernsExternal(line, present()), signal),
    reachNotices: (signal) => monitor.changes(concernsReach, signal),
    setCloudRoute: setVpcRoute,
    identity: identityHost(options.wireguardKeyFile, tun),
    connections: () => new Connections(),
    kernel: () => iproute2Kernel({ onLost }),
    ikeDaemon: (onLine) => new Charon({ onLine }),
    forwarder: (wish) => hostForwarder(wish, tun, descriptors),
    hostDrops: readHostDrops,
    hostDrops6: readHostDrops6,
    deviceDrops: readDeviceDrops,
    probes: { open: () => openProbeSocket(), describeErrno: describeSendErrno },
    endFastPath,
    probeChecksum,
    outerFilters: new OuterFilters(),
    trafficManager: (kind) => (kind === 'iptables' ? new IptablesTrafficManager() : new NftablesTrafficManager()),
    firewall: (signal) => firewall.read(signal),
    readText,
    releaseMemory,
    serviceManager: (onProblem) => systemdNotifier({ environment: process.env, isAlive: () => true, onProblem }),
    handOver: {
      announce: (signal) => handOver.announce(signal),
      accept: (parts) => handOver.accept(parts),
      settled: () => descriptors[Symbol.dispose](),
    },
  };
}

async function readText(path: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    return await readFile(path, { encoding: 'utf8', signal });
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function releaseMemory(): void {
  releaseIdleMemory(collectGarbage);
}
