import { WeftError } from '../errors.ts';
import { present } from '../ip/family.ts';
import { checkBridgeNetfilter } from '../trafficmngr/bridge-netfilter.ts';
import { describeForwardDrop, findForwardDrops } from '../trafficmngr/forward-drops.ts';
import { describeForwardingOff, forwardingOff, forwardingRemedy } from '../trafficmngr/ip-forwarding.ts';
import { type Check, fail, ok, warn } from './check.ts';
import {
  familiesHere,
  hasForwarder,
  NOTHING_TO_COMPARE,
  prefixesOf,
  readBackend,
  readNetConf,
  readSubnetEnv,
} from './facts.ts';
import type { DoctorHost, DoctorPaths } from './host.ts';
import { hasOwnNetwork, OWN_NETWORK, OWN_NETWORK_FILES } from './own-network.ts';

/** What must be on in the kernel, installed beside it, and not in the way. */
export function kernelChecks(host: DoctorHost, paths: DoctorPaths): Check[] {
  const usesNftables = async (): Promise<boolean> => (await readNetConf(host, paths))?.config?.enableNfTables === true;
  return [
    {
      name: 'host-network',
      looksAt: 'whether the agent’s container, if any, uses the host’s network',
      run: async () => {
        const [hostname, mountinfo] = await Promise.all([
          host.readText(OWN_NETWORK_FILES.hostname),
          host.readText(OWN_NETWORK_FILES.mountinfo),
        ]);
        return hasOwnNetwork(hostname ?? '', mountinfo ?? '')
          ? warn(OWN_NETWORK.found, OWN_NETWORK.remedy)
          : ok('no sign that it does not');
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
  ];
}
