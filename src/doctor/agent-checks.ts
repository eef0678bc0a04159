import { dirname } from 'node:path';
import { configuredBackend, defaultOwnLinks } from '../backend/registry.ts';
import { isTunName } from '../backend/tun-name.ts';
import { formatCidr } from '../cni/ip-text.ts';
import { parsePluginSubnetEnv } from '../cni/plugin-subnet-env.ts';
import { counted } from '../counted.ts';
import { WeftError } from '../errors.ts';
import { present } from '../ip/family.ts';
import { startupErrorPath } from '../node-files/last-error.ts';
import { type Check, type Finding, fail, ok, warn } from './check.ts';
import { readBackend, readNetConf } from './facts.ts';
import type { DoctorHost, DoctorPaths } from './host.ts';

/** Share of packets from which on loss is felt. */
const LOSSY = 0.001;
/** The kernel's own multicast, which nobody takes on a device without peers, is dropped there and counted with the rest. */
const FEW_DROPS = 100;
const QUEUE_REMEDY =
  'Packets arrive, or arrived, faster than the agent can carry them. Check the CPU usage of flanneld, enable the fast path, or increase the queue length (ip link set DEVICE txqueuelen 5000).';
const DEVICE_REMEDY =
  'The device of the backend had no room or no destination for these packets. weft test compares destinations and routes with the leases, and weft trace --drops shows what is dropped now.';
const REFUSED_REMEDY =
  'Packets from these senders are dropped. docs/MIGRATION.md lists the possible causes ("Packets that are refused").';

const ALONE_REMEDY =
  'The agent’s log names these hosts ("Peers that have carried packets without an agent"). They do not learn of changes. Start their agents, or run weft cleanup there if the hosts have left the network.';
const SKIPPED_REMEDY =
  'Packets to these hosts are lost. An address that is not on the link needs a backend that crosses routers (vxlan, wireguard, ipip, udp), or an interface in the same network (--iface). docs/TROUBLESHOOTING.md lists all reasons ("Unreachable peers").';

/** The agent: what it was told, what it says, what it has written. */
export function agentChecks(host: DoctorHost, paths: DoctorPaths): Check[] {
  /** What the agent lists there, which is better empty. */
  async function listOf(path: string, none: string, remedy: string, signal: AbortSignal): Promise<Finding> {
    const answer = await host.get(paths.healthzPort, path, signal);
    if (answer?.status !== 200) return ok('unknown: the agent does not answer (see health)');
    const lines = answer.body.split('\n').filter((line) => line !== '');
    return lines.length === 0 ? ok(none) : warn(lines.join(' '), remedy);
  }

  return [
    {
      name: 'network-config',
      looksAt: paths.netConfigPath,
      run: async () => {
        const read = await readNetConf(host, paths);
        if (read === undefined)
          return ok(
            'the file does not exist: the agent reads the configuration from its store, or from --net-config-path',
          );
        const shown = (list: typeof read.problems): string =>
          list.map(({ path, message }) => `${path} ${message}`).join('; ');
        if (read.config === undefined)
          return fail(shown(read.problems), 'Correct it. The agent cannot start with this configuration.');
        try {
          configuredBackend(read.config);
        } catch (error) {
          if (!(error instanceof WeftError)) throw error;
          return fail(error.message, error.hint ?? 'Name another one.');
        }
        const doubts = [
          ...(read.warnings.length > 0 ? [shown(read.warnings)] : []),
          ...(read.ignoredKeys.length > 0 ? [`ignored keys: ${read.ignoredKeys.join(', ')}`] : []),
        ];
        return doubts.length > 0
          ? warn(doubts.join('; '), 'Look for a misspelt key, or a key of another backend.')
          : ok(`backend ${read.config.backend.type}`);
      },
    },
    {
      name: 'last-start',
      looksAt: 'the error of the last failed start',
      run: async () => {
        const path = startupErrorPath(dirname(paths.subnetFile));
        const text = await host.readText(path);
        if (text === undefined) return ok('none');
        const at = await host.modifiedAt(path);
        return fail(
          `${at?.toISOString() ?? ''} ${text.trim()}`.trim(),
          'Fix the error. The agent retries automatically.',
        );
      },
    },
    {
      name: 'subnet-env',
      looksAt: paths.subnetFile,
      run: async () => {
        const text = await host.readText(paths.subnetFile);
        if (text === undefined) {
          return fail(
            'the file does not exist: the agent has not been ready since the host booted, and no pod can start',
            'See last-start and health, and check that the agent runs.',
          );
        }
        try {
          const env = parsePluginSubnetEnv(text, paths.subnetFile);
          const at = await host.modifiedAt(paths.subnetFile);
          const subnets = present(env.subnets).map(formatCidr);
          return ok(`${subnets.join(', ')}, MTU ${env.mtuBytes}, written ${at?.toISOString() ?? 'at an unknown time'}`);
        } catch (error) {
          return fail((error as Error).message, 'Delete the file and restart the agent, which writes it again.');
        }
      },
    },
    {
      name: 'udp-ports',
      looksAt: 'the ports for packets from other hosts',
      run: async (signal) => {
        const backend = await readBackend(host, paths, signal);
        const ports = backend?.kind.udpPorts?.(backend.config) ?? [];
        if (ports.length === 0) return ok(backend === undefined ? 'no agent runs here yet' : 'this backend has none');
        const programs = backend?.kind.programs?.map(({ name }) => name) ?? [];
        const own = new RegExp(['flanneld', 'weft', ...programs].join('|'));
        const found = ports.map((port) => ({ port, holders: host.udpPortHolders(port) }));
        const taken = found.flatMap(({ port, holders }) => {
          const strangers = holders.filter((holder) => !own.test(holder));
          return strangers.length === 0 ? [] : [`UDP ${port} is taken by ${strangers.join(', ')}`];
        });
        if (taken.length > 0) {
          return fail(
            taken.join('; '),
            'Stop that program, or set another port for the backend in net-conf.json, the same on every host.',
          );
        }
        const of = (holders: readonly string[]): string =>
          holders.join(', ') || 'no program, but the kernel may use it';
        return ok(found.map(({ port, holders }) => `UDP ${port}: ${of(holders)}`).join('; '));
      },
    },
    {
      name: 'queue-drops',
      looksAt: 'packets dropped at weft’s devices',
      run: async (signal) => {
        const backend = await readBackend(host, paths, signal);
        const present = await host.links(signal);
        const tuns = present.flatMap(({ name }) => (isTunName(name) ? name : []));
        const own = new Set([...defaultOwnLinks(tuns), ...(backend?.links ?? [])].map(({ name }) => name));
        const links = present.filter(({ name }) => own.has(name));
        const lossy: { readonly name: string; readonly text: string }[] = [];
        for (const { name } of links) {
          const count = async (what: string): Promise<number> =>
            Number((await host.readText(`/sys/class/net/${name}/statistics/${what}`)) ?? 0);
          for (const way of ['tx', 'rx']) {
            const [dropped, passed] = [await count(`${way}_dropped`), await count(`${way}_packets`)];
            if (dropped < FEW_DROPS) continue;
            if (dropped <= (dropped + passed) * LOSSY) continue;
            lossy.push({ name, text: `${name} ${way}: ${dropped} of ${dropped + passed}` });
          }
        }
        return lossy.length === 0
          ? ok('hardly any since the devices were created')
          : warn(
              lossy.map(({ text }) => text).join(', '),
              lossy.some(({ name }) => isTunName(name)) ? QUEUE_REMEDY : DEVICE_REMEDY,
            );
      },
    },
    {
      name: 'refused-senders',
      looksAt: 'senders whose packets the agent has rejected in the last ten minutes',
      run: (signal) => listOf('/refusals', 'none', REFUSED_REMEDY, signal),
    },
    {
      name: 'skipped-peers',
      looksAt: 'peers that the backend cannot reach',
      run: (signal) => listOf('/skipped-peers', 'none', SKIPPED_REMEDY, signal),
    },
    {
      name: 'health',
      looksAt: `the agent’s answer on port ${paths.healthzPort}`,
      run: async (signal) => {
        const answer = await host.get(paths.healthzPort, '/readyz', signal);
        if (answer === undefined) {
          return warn(
            `no process listens on 127.0.0.1:${paths.healthzPort}`,
            'Start the agent with --healthz-port. If it uses another port, pass that port to weft doctor with --healthz-port.',
          );
        }
        return answer.status === 200
          ? ok(answer.body)
          : fail(`${answer.status} ${answer.body}`, "The answer contains the reason. The agent's log has more.");
      },
    },
    {
      name: 'network-config-in-use',
      looksAt: 'the agent uses the current network configuration',
      run: async (signal) => {
        const answer = await host.get(paths.healthzPort, '/metrics', signal);
        if (answer === undefined) return ok('unknown: the agent does not answer (see health)');
        if (!/^weft_network_config_outdated 1$/m.test(answer.body)) return ok('yes');
        return warn(
          'no, the configuration has changed since the agent started',
          'Restart the agent to apply the change. Its log says what has changed. If the backend has changed, restart node by node.',
        );
      },
    },
    {
      name: 'peers-without-agent',
      looksAt: 'peers that carry packets although their agents are gone',
      run: async (signal) => {
        const answer = await host.get(paths.healthzPort, '/metrics', signal);
        if (answer === undefined) return ok('unknown: the agent does not answer (see health)');
        const count = Number(/^weft_fast_path_peers_without_agent (\d+)$/m.exec(answer.body)?.[1] ?? 0);
        if (count === 0) return ok('none');
        return warn(
          `${counted(count, 'peer')} without an agent for more than a minute, reached by the fast path alone`,
          ALONE_REMEDY,
        );
      },
    },
    {
      name: 'lease-entries',
      looksAt: 'entries of the lease store that the agent rejects',
      run: async (signal) => {
        const answer = await host.get(paths.healthzPort, '/metrics', signal);
        if (answer === undefined) return ok('unknown: the agent does not answer (see health)');
        const refused = [...answer.body.matchAll(/^weft_refused_leases\{reason="([a-z-]+)"\} (\d+)$/gm)];
        if (refused.length === 0) return ok('none');
        const shown = refused.map(([, reason, count]) => `${count} ${reason}`).join(', ');
        const text = `no packets are sent to these hosts or accepted from them: ${shown}`;
        const remedy =
          'The agent’s log names each entry ("Refusing the lease"), and docs/METRICS.md explains the reasons. Correct or delete the entry: with Kubernetes the Node and its annotations, with etcd the key.';
        return refused.some(([, reason]) => reason === 'overlaps-own') ? fail(text, remedy) : warn(text, remedy);
      },
    },
  ];
}
