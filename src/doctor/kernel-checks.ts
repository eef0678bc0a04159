import { formatCidr } from '../cni/ip-text.ts';
import { BOOT_ROUTE_PROTOCOL, KERNEL_ROUTE_PROTOCOL, WEFT_ROUTE_PROTOCOL } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
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
import { checkBridgeNetfilter } from '../trafficmngr/bridge-netfilter.ts';
import { describeForwardDrop, findForwardDrops } from '../trafficmngr/forward-drops.ts';
import { describeForwardingOff, forwardingOff, forwardingRemedy } from '../trafficmngr/ip-forwarding.ts';
import { type Check, type Finding, fail, ok, warn } from './check.ts';
import {
  familiesHere,
  gatewaysOf,
  hasForwarder,
  type LackedAddress,
  lackedAddresses,
  NOTHING_TO_COMPARE,
  named,
  prefixesOf,
  readBackend,
  readNetConf,
  readSubnetEnv,
} from './facts.ts';
import type { DoctorHost, DoctorPaths, HostLink, HostRoute } from './host.ts';
import { hasOwnNetwork, OWN_NETWORK, OWN_NETWORK_FILES } from './own-network.ts';

const BRIDGE = 'cni0';

/** The kernel: what must be on, and whether links and routes are as subnet.env says. */
export function kernelChecks(host: DoctorHost, paths: DoctorPaths): Check[] {
  const link = async (name: string, signal: AbortSignal): Promise<HostLink | undefined> =>
    (await host.links(signal)).find((one) => one.name === name);
  const usesNftables = async (): Promise<boolean> => (await readNetConf(host, paths))?.config?.enableNfTables === true;
  return [
    {
      name: 'host-network',
      looksAt: 'whether a container with the agent is in the network of its host',
      run: async () => {
        const [hostname, mountinfo] = await Promise.all([
          host.readText(OWN_NETWORK_FILES.hostname),
          host.readText(OWN_NETWORK_FILES.mountinfo),
        ]);
        return hasOwnNetwork(hostname ?? '', mountinfo ?? '')
          ? warn(OWN_NETWORK.found, OWN_NETWORK.remedy)
          : ok('nothing says that it is not');
      },
    },
    {
      name: 'br-netfilter',
      looksAt: 'packets between pods of this node pass iptables',
      run: async () => {
        if (await usesNftables()) return ok('not needed with EnableNFTables');
        try {
          const families = await familiesHere(host, paths);
          const versions = families.map(({ version }) => version);
          const [problem] = await checkBridgeNetfilter(versions, (path) => host.readText(path));
          return problem === undefined
            ? ok('br_netfilter is loaded and enabled')
            : warn(`${problem.path} is 0`, problem.message);
        } catch (error) {
          if (!(error instanceof WeftError)) throw error;
          return fail(error.message, error.hint ?? 'modprobe br_netfilter');
        }
      },
    },
    {
      name: 'ip-forward',
      looksAt: 'whether the kernel forwards packets of each family of the network',
      run: async () => {
        const families = await familiesHere(host, paths);
        const off = await forwardingOff(families, (path) => host.readText(path));
        return off.length === 0
          ? ok(`enabled for ${families.map(({ name }) => name).join(' and ')}`)
          : warn(describeForwardingOff(off), forwardingRemedy(off));
      },
    },
    {
      name: 'ipsec',
      looksAt: 'IPsec policies, which the fast path in the kernel would bypass',
      run: async (signal) => {
        if (!hasForwarder(await readBackend(host, paths, signal))) return ok('no fast path in this backend');
        const count = host.ipsecPolicies();
        if (count === 0) return ok('none: the fast path can be used');
        return warn(
          `${count === undefined ? 'the kernel does not say which' : count} IPsec policies: the fast path is closed, and all packets pass through the agent`,
          'Nothing to do if you need IPsec. Otherwise see ip xfrm policy. The fast path opens when the last policy is removed.',
        );
      },
    },
    {
      name: 'firewall-tools',
      looksAt: 'the programs that set masquerade and forward rules',
      run: async (signal) => {
        const programs = (await usesNftables()) ? ['nft'] : ['iptables', 'iptables-restore'];
        const found = await Promise.all(programs.map((program) => host.versionOf({ name: program }, signal)));
        const missing = programs.filter((_, index) => found[index] === undefined);
        return missing.length === 0
          ? ok(found[0]!)
          : fail(
              `not installed: ${missing.join(', ')}`,
              `On Debian: apt-get install ${programs.includes('nft') ? 'nftables' : 'iptables'}`,
            );
      },
    },
    {
      name: 'backend-tools',
      looksAt: 'the programs that the backend needs',
      run: async (signal) => {
        const { programs = [] } = (await readBackend(host, paths, signal))?.kind ?? {};
        if (programs.length === 0) return ok('none');
        const found = await Promise.all(programs.map((program) => host.versionOf(program, signal)));
        const missing = programs.filter((_, index) => found[index] === undefined);
        return missing.length === 0
          ? ok(found.join(', '))
          : fail(
              `not installed: ${missing.map(({ name }) => name).join(', ')}`,
              `On Debian: apt-get install ${missing.map(({ packages }) => packages).join(' ')}`,
            );
      },
    },
    {
      name: 'forward-drops',
      looksAt: 'chains of other firewalls that drop pod traffic',
      run: async (signal) => {
        const env = await readSubnetEnv(host, paths);
        const networks = env === undefined ? [] : prefixesOf(present(env.networks).flat());
        if (networks.length === 0) return ok(NOTHING_TO_COMPARE);
        const devices = (await readBackend(host, paths, signal))?.links.map(({ name }) => name) ?? [];
        const text = await host.firewall(signal);
        const drops = networks.flatMap((network) => findForwardDrops(text, network, devices));
        if (drops.length === 0) return ok('none');
        const all = (texts: readonly string[], between: string): string => [...new Set(texts)].join(between);
        return fail(
          all(drops.map(describeForwardDrop), '; '),
          all(
            drops.map(({ hint }) => hint),
            ' ',
          ),
        );
      },
    },
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
        if (bridge === undefined || bridge.addresses.length === 0) return ok('no pod has been added yet');
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
  return warn(said.join('; '), `Run: ${commands}. The next pod restores it, too.`);
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
