import { formatCidr } from '../cni/ip-text.ts';
import { BOOT_ROUTE_PROTOCOL, KERNEL_ROUTE_PROTOCOL, WEFT_ROUTE_PROTOCOL } from '../desired/state.ts';
import {
  containsPrefix,
  formatAddr,
  type IpPrefix,
  overlaps,
  parseAddr,
  parsePrefix,
  singlePrefix,
} from '../ip/address.ts';
import { FAMILIES, perFamily, present } from '../ip/family.ts';
import { type Check, type Finding, fail, ok, warn } from './check.ts';
import {
  gatewaysOf,
  type LackedAddress,
  lackedAddresses,
  NOTHING_TO_COMPARE,
  named,
  prefixesOf,
  readBackend,
  readSubnetEnv,
} from './facts.ts';
import type { DoctorHost, DoctorPaths, HostLink, HostRoute } from './host.ts';

const BRIDGE = 'cni0';

/** Links, routes and MTU of this host, compared with what subnet.env says of it. */
export function subnetEnvChecks(host: DoctorHost, paths: DoctorPaths): Check[] {
  const link = async (name: string, signal: AbortSignal): Promise<HostLink | undefined> =>
    (await host.links(signal)).find((one) => one.name === name);
  return [
    {
      name: 'backend-links',
      looksAt: 'the devices of the backend, compared with subnet.env',
      run: async (signal) => {
        const env = await readSubnetEnv(host, paths);
        if (env === undefined) return ok(NOTHING_TO_COMPARE);
        const { links = [] } = (await readBackend(host, paths, signal)) ?? {};
        if (links.length === 0) return ok('this backend has none');
        const own = perFamily((key) => env.subnets[key] && formatAddr(env.subnets[key].ip));
        const problems: string[] = [];
        for (const { name, family } of links) {
          const device = await link(name, signal);
          const addresses = FAMILIES.flatMap(({ key }) =>
            family === undefined || family === key ? (own[key] ?? []) : [],
          );
          if (device === undefined) problems.push(`there is no ${name}`);
          else problems.push(...strayFrom(device, env.mtuBytes, addresses));
        }
        return problems.length === 0
          ? ok(`${links.map(({ name }) => name).join(', ')}: up, ${present(own).join(', ')}, MTU ${env.mtuBytes}`)
          : fail(problems.join('; '), 'A running agent repairs this: see health. Otherwise start the agent.');
      },
    },
    {
      name: 'routes',
      looksAt: 'the route to the pods of other nodes',
      run: async (signal) => {
        const env = await readSubnetEnv(host, paths);
        if (env === undefined) return ok(NOTHING_TO_COMPARE);
        const backend = await readBackend(host, paths, signal);
        const { links = [] } = backend ?? {};
        if (links.length === 0 || backend?.kind.routesWholeNetwork !== true) {
          return ok('one route per node: the agent reports missing ones (see health)');
        }
        const routes = await host.routes(signal);
        const wanted = FAMILIES.flatMap(({ key }) => {
          const dev = links.find(({ family }) => family === undefined || family === key)?.name;
          return dev === undefined ? [] : env.networks[key].map((network) => ({ dst: formatCidr(network), dev }));
        });
        const missing = wanted.filter(
          ({ dst, dev }) => !routes.some((route) => route.dst === dst && route.dev === dev),
        );
        return missing.length === 0
          ? ok(wanted.map(({ dst, dev }) => `${dst} dev ${dev}`).join(', '))
          : fail(
              missing.map(({ dst, dev }) => `no route to ${dst} by ${dev}`).join('; '),
              'A running agent restores it: see health. Otherwise start the agent.',
            );
      },
    },
    {
      name: 'peer-routes',
      looksAt: 'routes of other programs to the pods of other nodes',
      run: async (signal) => {
        const env = await readSubnetEnv(host, paths);
        if (env === undefined) return ok(NOTHING_TO_COMPARE);
        const backend = await readBackend(host, paths, signal);
        if (backend?.kind.isCarriedByOthers === true) return ok('this backend leaves them to others');
        const own = new Set(backend?.links.map(({ name }) => name));
        const networks = prefixesOf(present(env.networks).flat());
        const subnets = prefixesOf(present(env.subnets));
        const foreign = (await host.routes(signal)).filter(({ dst, dev, protocol }) => {
          const isByOthers = protocol !== WEFT_ROUTE_PROTOCOL && protocol !== KERNEL_ROUTE_PROTOCOL;
          if (!isByOthers || (dev !== undefined && own.has(dev))) return false;
          const to = parsePrefix(dst) ?? singleHost(dst);
          const isIn = (some: readonly IpPrefix[]): boolean => some.some((one) => to && containsPrefix(one, to));
          return isIn(networks) && !isIn(subnets);
        });
        const [first] = foreign;
        return first === undefined
          ? ok('none')
          : warn(
              `packets take these instead of the agent’s: ${named(foreign.map(describeHostRoute))}`,
              `The agent leaves routes of other programs alone. If nothing needs them, remove them: ip route delete ${describeHostRoute(first)}`,
            );
      },
    },
    {
      name: 'mtu',
      looksAt: 'the MTU of pods, compared with that of the network between the hosts',
      run: async (signal) => {
        const env = await readSubnetEnv(host, paths);
        if (env === undefined) return ok(NOTHING_TO_COMPARE);
        const backend = await readBackend(host, paths, signal);
        if (backend === undefined) return ok('unknown: no backend is configured here');
        const device = (await host.routes(signal)).find(({ dst }) => dst === 'default')?.dev;
        const underlay = device === undefined ? undefined : await link(device, signal);
        if (underlay === undefined)
          return ok('unknown: there is no default route, so the interface to the other hosts is not known');
        const overhead = backend.kind.overheadBytes ?? { ipv4: 0, ipv6: 0 };
        // A device of IPv6 alone has its packets in IPv6; one for both families has them in IPv4, unless the network has none.
        const isOverIpv6 = backend.links.some(({ family }) => family === 'ipv6') || env.networks.ipv4.length === 0;
        const outer = isOverIpv6 ? 'ipv6' : 'ipv4';
        const fits = underlay.mtuBytes - overhead[outer];
        return env.mtuBytes <= fits
          ? ok(`${env.mtuBytes} inside ${underlay.mtuBytes} of ${underlay.name}`)
          : warn(
              `pods use ${env.mtuBytes}, and ${underlay.name} has room for ${fits}: large packets are fragmented or lost`,
              'Restart the agent, which follows the MTU of its interface, or set MTU in Backend of net-conf.json.',
            );
      },
    },
    {
      name: 'bridge-address',
      looksAt: `${BRIDGE}, compared with subnet.env`,
      run: async (signal) => {
        const env = await readSubnetEnv(host, paths);
        if (env === undefined) return ok(NOTHING_TO_COMPARE);
        const bridge = await link(BRIDGE, signal);
        if (bridge === undefined || bridge.addresses.length === 0) return ok('no pod has run here yet');
        const gateways = gatewaysOf(env);
        const lacked = lackedAddresses(bridge, gateways);
        return lacked.length === 0 ? ok(present(gateways).join(', ')) : bridgeFinding(lacked);
      },
    },
  ];
}

function singleHost(dst: string): IpPrefix | undefined {
  const addr = parseAddr(dst);
  return addr && singlePrefix(addr);
}

function describeHostRoute({ dst, dev, via, protocol = BOOT_ROUTE_PROTOCOL }: HostRoute): string {
  const way = [...(via === undefined ? [] : ['via', via]), ...(dev === undefined ? [] : ['dev', dev])];
  return [dst, ...way, 'proto', protocol].join(' ');
}

/** The bridge plugin adds the address that it needs, unless there is one of IPv4, or of IPv6 in the same subnet: then it fails. */
function bridgeFinding(lacked: readonly LackedAddress[]): Finding {
  const isInTheWay = ({ family, address, others }: LackedAddress): boolean => {
    const [subnet, ...theirs] = [address, ...others].map(parsePrefix);
    return theirs.some((other) => family.version === 4 || (subnet && other && overlaps(subnet, other)));
  };
  const said = lacked.map((one) => {
    const { family, address, text } = one;
    const effect = isInTheWay(one)
      ? `new pods fail with "${BRIDGE} already has an IP address different from ${address}"`
      : `pods do not reach other hosts over ${family.name}`;
    return `${text}, and the subnet of this host needs ${address}: ${effect}`;
  });
  if (lacked.some(isInTheWay)) {
    return fail(
      said.join('; '),
      `The subnet has changed. Drain the node, then run: ip link delete ${BRIDGE}. The next pod recreates the bridge.`,
    );
  }
  const commands = lacked.map(({ command }) => command).join('; ');
  return warn(said.join('; '), `Run: ${commands}. The next pod also restores it.`);
}

/** What is wrong with a device of the backend. */
function strayFrom(device: HostLink, mtuBytes: number, addresses: readonly string[]): string[] {
  const has = (wanted: string): boolean => device.addresses.some((one) => one.split('/')[0] === wanted);
  return [
    ...(device.up ? [] : [`${device.name} is down`]),
    ...(device.mtuBytes >= mtuBytes
      ? []
      : [`the MTU of ${device.name} is ${device.mtuBytes}, subnet.env says ${mtuBytes}`]),
    ...addresses.flatMap((address) => (has(address) ? [] : `${device.name} does not have ${address}`)),
  ];
}
