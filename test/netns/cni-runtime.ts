import { join } from 'node:path';
import { CONTAINER_DEVICE } from '../../src/lab/namespaces.ts';
import type { LabContainer, Topology } from '../../src/lab/topology.ts';

export interface CniAnswer {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CniResult {
  readonly cniVersion: string;
  readonly interfaces: readonly { readonly name: string; readonly mac: string; readonly sandbox?: string }[];
  readonly ips: readonly { readonly address: string; readonly gateway: string; readonly interface: number }[];
  readonly routes: readonly { readonly dst: string; readonly gw?: string }[];
}

type Plugin = Readonly<Record<string, unknown>> & { readonly type: string };

/** Starts plugins for the containers of a topology as a container runtime does (libcni, specification section 3). */
export class CniRuntime {
  readonly #topology: Topology;
  /** CNI_PATH. */
  readonly folders: readonly string[];

  constructor(topology: Topology, folders: readonly string[]) {
    this.#topology = topology;
    this.folders = folders;
  }

  /** One plugin with this configuration on the host of `pod`. */
  async call(
    command: string,
    program: string,
    config: object,
    pod: LabContainer,
    env: Readonly<Record<string, string>> = {},
  ): Promise<CniAnswer> {
    return this.#topology.exec(pod.host, [program], {
      stdin: JSON.stringify(config),
      okExitCodes: 'any',
      env: {
        CNI_COMMAND: command,
        CNI_CONTAINERID: pod.name,
        CNI_NETNS: `/run/netns/${pod.namespace}`,
        CNI_IFNAME: CONTAINER_DEVICE,
        CNI_PATH: this.folders.join(':'),
        ...env,
      },
    });
  }

  /** All plugins of a configuration file's text, in order. @throws Error with what the plugin that failed said. */
  async add(conf: string, pod: LabContainer, capabilities: Readonly<Record<string, unknown>> = {}): Promise<CniResult> {
    let result: CniResult | undefined;
    for (const [plugin, config] of configsOf(conf, capabilities)) {
      const input = result === undefined ? config : { ...config, prevResult: result };
      result = JSON.parse(await this.#ok('ADD', plugin, input, pod)) as CniResult;
    }
    return result!;
  }

  async del(
    conf: string,
    pod: LabContainer,
    result: CniResult,
    capabilities: Readonly<Record<string, unknown>> = {},
  ): Promise<void> {
    for (const [plugin, config] of configsOf(conf, capabilities).reverse()) {
      await this.#ok('DEL', plugin, { ...config, prevResult: result }, pod);
    }
  }

  /** CHECK of all plugins, as CRI-O and podman send it. @throws Error with what the plugin that failed said. */
  async check(conf: string, pod: LabContainer, result: CniResult): Promise<void> {
    for (const [plugin, config] of configsOf(conf, {})) {
      await this.#ok('CHECK', plugin, { ...config, prevResult: result }, pod);
    }
  }

  async #ok(command: string, plugin: Plugin, config: object, pod: LabContainer): Promise<string> {
    const answer = await this.call(command, join(this.folders[0]!, plugin.type), config, pod);
    if (answer.exitCode !== 0) throw new Error(`${command} of ${plugin.type}: ${answer.stdout}${answer.stderr}`);
    return answer.stdout;
  }
}

/** What each plugin gets: its entry with the name and version of the list, and the capabilities it asks for. */
function configsOf(conf: string, capabilities: Readonly<Record<string, unknown>>): [Plugin, object][] {
  const { name, cniVersion, plugins } = JSON.parse(conf) as {
    readonly name: string;
    readonly cniVersion: string;
    readonly plugins: readonly Plugin[];
  };
  return plugins.map((plugin) => {
    const { capabilities: wanted = {}, ...entry } = plugin as Plugin & {
      readonly capabilities?: Readonly<Record<string, boolean>>;
    };
    const given = Object.entries(capabilities).filter(([key]) => wanted[key] === true);
    const runtimeConfig = given.length === 0 ? {} : { runtimeConfig: Object.fromEntries(given) };
    return [plugin, { ...entry, name, cniVersion, ...runtimeConfig }];
  });
}
