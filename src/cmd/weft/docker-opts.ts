import { readFile, writeFile } from 'node:fs/promises';
import { parseEnv } from 'node:util';
import { Command } from 'commander';
import { describeError, WeftError } from '../../errors.ts';
import { formatIpv4, ipv4Of, parseIpv4 } from '../../ip/ipv4.ts';
import { isCommandMissing, run } from '../../linux/run.ts';

interface DockerOptsArguments {
  readonly f: string;
  readonly d: string;
  readonly i?: true;
  readonly c?: true;
  readonly k: string;
  readonly m?: true;
}

export interface DockerOptsRequest {
  /** Shell variables: the environment, and over it what subnet.env sets. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly individual: boolean;
  readonly combined: boolean;
  /** Name of the variable with all options together. */
  readonly combinedKey: string;
  readonly ipMasq: boolean;
}

const OPTION_PREFIX = 'DOCKER_OPT_';

/**
 * `weft docker-opts`: flannel's mk-docker-opts.sh with the same flags, defaults and output, for a Docker daemon that
 * takes its bridge from the node's subnet. It differs where the shell did it harm: an exported option with a space in
 * it stays whole, and wrong usage ends with 2.
 */
export function dockerOptsCommand(): Command {
  return new Command('docker-opts')
    .summary('generate options for the Docker daemon')
    .description('Generate options for the Docker daemon from subnet.env, like mk-docker-opts.sh.')
    .option('-f <file>', 'subnet.env written by the agent', '/run/flannel/subnet.env')
    .option('-d <file>', 'environment file to write', '/run/docker_opts.env')
    .option('-i', 'write each option as a separate variable, such as DOCKER_OPT_MTU')
    .option('-c', 'write all options to one variable (if neither -i nor -c is given, both apply)')
    .option('-k <name>', 'name of the variable written by -c', 'DOCKER_OPTS')
    .option('-m', 'omit --ip-masq')
    .action(async (options: DockerOptsArguments) => {
      const variables = { ...process.env, ...parseEnv(await readIfThere(options.f)) };
      const neither = options.i === undefined && options.c === undefined;
      const text = dockerOpts({
        variables,
        individual: options.i === true || neither,
        combined: options.c === true || neither,
        combinedKey: options.k,
        ipMasq: options.m !== true,
      });
      await write(options.d, text);
      await checkRoutes(variables.FLANNEL_SUBNET);
    });
}

/** The content of the environment file. Pure. @throws WeftError WEFT_SUBNET_FILE_INVALID when FLANNEL_IPMASQ is no boolean. */
export function dockerOpts({ variables, individual, combined, combinedKey, ipMasq }: DockerOptsRequest): string {
  const options = new Map<string, string>();
  for (const [name, value] of Object.entries(variables)) {
    if (name.startsWith(OPTION_PREFIX) && value !== undefined) options.set(name, value);
  }
  if (variables.FLANNEL_SUBNET) options.set(`${OPTION_PREFIX}BIP`, `--bip=${variables.FLANNEL_SUBNET}`);
  if (variables.FLANNEL_MTU) options.set(`${OPTION_PREFIX}MTU`, `--mtu=${variables.FLANNEL_MTU}`);
  if (variables.FLANNEL_IPMASQ && ipMasq) {
    // Who masquerades: the agent, or else Docker.
    options.set(`${OPTION_PREFIX}IPMASQ`, `--ip-masq=${!parseIpMasq(variables.FLANNEL_IPMASQ)}`);
  }
  const sorted = [...options].sort(([a], [b]) => (a < b ? -1 : 1));
  const lines: string[] = [];
  if (individual) lines.push(...sorted.map(([name, value]) => `${name}="${value}"`));
  if (combined) {
    const before = variables[combinedKey] ? `${variables[combinedKey]} ` : '';
    lines.push(`${combinedKey}="${before}${sorted.map(([, value]) => ` ${value}`).join('')}"`);
  }
  return lines.map((line) => `${line}\n`).join('');
}

function parseIpMasq(value: string): boolean {
  if (value === 'true' || value === 'false') return value === 'true';
  throw new WeftError('WEFT_SUBNET_FILE_INVALID', `Invalid value of FLANNEL_IPMASQ: ${value}`, {
    hint: 'It must be true or false; -m leaves --ip-masq out.',
  });
}

/** A missing file is no error: the variables may be exported instead. */
async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw new WeftError('WEFT_SUBNET_FILE_INVALID', `reading ${path}: ${describeError(error)}`, { cause: error });
  }
}

/** Written in place, so that `-d /dev/stdout` works. */
async function write(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text);
  } catch (error) {
    throw new WeftError('WEFT_OUTPUT_UNWRITABLE', `writing the Docker options to ${path}: ${describeError(error)}`, {
      hint: 'Choose another file with -d, or run as root.',
      cause: error,
    });
  }
}

/**
 * Docker refuses a bridge address whose subnet is routed elsewhere already; said here, where the reason can be seen.
 *
 * @throws WeftError WEFT_KERNEL_STATE
 */
async function checkRoutes(subnet: string | undefined): Promise<void> {
  const network = subnet && bridgeNetwork(subnet);
  if (!network) return;
  const routes = await run(['ip', 'route', 'show']).catch((error: unknown) => {
    if (isCommandMissing(error)) return undefined;
    throw error;
  });
  const route = routes && conflictingRoute(routes.stdout, network);
  if (route) {
    throw new WeftError('WEFT_KERNEL_STATE', `Your routing table already contains the subnet: ${route}`, {
      hint: 'Remove that route, or give this node another subnet.',
    });
  }
}

/** `10.1.74.1/24` → `10.1.74.0/24`: subnet.env has the address after the network's. */
export function bridgeNetwork(subnet: string): string | undefined {
  const [address = '', length] = subnet.split('/');
  const addr = parseIpv4(address);
  return addr === undefined || addr === 0 || length === undefined
    ? undefined
    : `${formatIpv4(ipv4Of(addr - 1))}/${length}`;
}

/** The first line of `ip route show` that sends the network through a gateway. */
export function conflictingRoute(routes: string, network: string): string | undefined {
  return routes
    .split('\n')
    .find((line) => {
      const words = line.trim().split(/\s+/);
      return words.includes(network) && words.includes('via');
    })
    ?.trim();
}
