import type { ExternalInterface, IdentityHost } from '../backend/backend.ts';
import {
  type BackendSetup,
  backendsBeside,
  configuredBackend,
  identifyBackend,
  linksLeftBehind,
  linksOfFormerBackend,
  openBackend,
} from '../backend/registry.ts';
import { networksBeside, ownTuns } from '../backend/tun-name.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { type NetworkConfig, networksOf } from '../config/network-config.ts';
import { describeRoute, EMPTY_WANTED_STATE, type OwnLink, type UnicastRoute } from '../desired/state.ts';
import type { RecordEvent } from '../events/event.ts';
import type { IpPrefix } from '../ip/address.ts';
import { perFamily } from '../ip/family.ts';
import type { Log } from '../log/log.ts';
import type { HostNetwork } from '../underlay/host-network.ts';
import type { ChosenInterface } from '../underlay/interface-choice.ts';
import type { KeepOptions } from '../underlay/keep-interface.ts';
import { describeAddressesInNetwork } from './address-in-network.ts';
import type { AgentFigures } from './agent-figures.ts';
import type { EarlierRun } from './earlier-run.ts';
import { externalOf, findExternalInterface } from './external-interface.ts';
import { failingAs } from './failing-as.ts';
import { formerRoutes } from './former-routes.ts';
import { IdentityWatch, untouched, withoutFreshKeys } from './identity-watch.ts';
import { InterfaceWatch } from './interface-watch.ts';
import { loggedCommands } from './logged-commands.ts';
import { NodePlane } from './node-plane.ts';
import type { OwnNode } from './own-node.ts';
import type { PeerProbes } from './peer-probes.ts';
import type { AgentHost } from './ports.ts';
import type { NodeReadiness } from './readiness.ts';

const SILENT: Pick<Log, 'info'> = { info: () => {} };

/** What carries packets, and what tells it to move. */
export interface NodeParts {
  readonly plane: NodePlane;
  readonly watch: InterfaceWatch;
  /** `undefined` when nothing can replace it. */
  readonly identity: IdentityWatch | undefined;
}

export interface NodePartsNeeds {
  readonly host: AgentHost;
  readonly options: FlanneldOptions;
  readonly earlier: EarlierRun;
  readonly node: OwnNode;
  readonly figures: AgentFigures;
  readonly readiness: NodeReadiness;
  readonly probes: PeerProbes;
  readonly record: RecordEvent;
  readonly log: Log;
  readonly onFatal: (error: unknown) => void;
  /** Everything that ends with the agent. */
  readonly stack: AsyncDisposableStack;
}

/** Makes the parts for a network configuration; those that were made last are what readiness and metrics look at. */
export class NodePartsMaker {
  readonly #needs: NodePartsNeeds;
  #last: NodeParts | undefined;
  /** The parts of the plane that readiness looks at. */
  #watched = new DisposableStack();
  #network: HostNetwork = { interfaces: [], defaultDevices: { ipv4: [], ipv6: [] }, canReach: undefined };

  constructor(needs: NodePartsNeeds) {
    this.#needs = needs;
  }

  /** Those that were made last, once there are any. */
  get last(): NodeParts | undefined {
    return this.#last;
  }

  /** As it was when the external interface was last looked for. */
  get network(): HostNetwork {
    return this.#network;
  }

  /** Changes nothing on the host. @throws WeftError for an interface, a configuration or an identity that cannot be used. */
  async make(config: NetworkConfig, signal: AbortSignal): Promise<NodeParts> {
    const { host, options, earlier, node, figures, probes, record, log, onFatal, stack } = this.#needs;
    const chosen = await this.#choose(config, { inUse: earlier.known?.external, isRunning: false }, log, signal);
    const external = externalOf(chosen);
    const isPlanned = options.subnetManager !== 'kube';
    for (const text of describeAddressesInNetwork(config, external, isPlanned)) log.warn(text);
    const runCommand = loggedCommands(host.identity.runCommand, log);
    const identity = { ...host.identity, runCommand };
    const configured = configuredBackend(config);
    const formerNetworks = await earlier.networks(signal);
    const published = earlier.known?.own.attrs.backendData ?? (await node.published(signal));
    const past = { published, networks: formerNetworks };
    const setup = await failingAs('Error registering network: ', () =>
      identifyBackend(configured, config, past, identity, signal),
    );
    const [tunDevices, ownNetworks] = [await identity.tunDevices(signal), [...networksOf(config), ...formerNetworks]];
    const tuns = ownTuns(tunDevices, ownNetworks);
    // An overlay over the other's has its hosts there.
    const others = tunDevices.filter((device) => device.name !== external.name);
    earlier.noteBackend(config.backend.type, record);
    const formerLinks = this.#formerLinks(config, setup, external, ownNetworks, tuns);
    const formerRoutes = await this.#formerRoutes(setup, external, signal);
    probes.clear();
    const plane = stack.use(
      new NodePlane({
        ...{
          host,
          options,
          config,
          setup,
          formerLinks,
          formerRoutes,
          formerNetworks,
          tuns,
          networksBeside: networksBeside(others, ownNetworks),
          runCommand,
          probes,
          record,
          log,
          onFatal,
        },
        ...{ external, slots: figures.slots },
        others: {
          candidates: backendsBeside(configured, earlier.known?.config),
          // Nothing is published for it.
          identify: (beside, signal) =>
            identifyBackend(beside, config, { ...past, published: perFamily(() => undefined) }, identity, signal),
        },
        onForwarderEvent: (event) => figures.countForwarderEvent(event),
        onFastPath: (state) => {
          figures.fastPath = state;
        },
      }),
    );
    figures.backend = config.backend.type;
    figures.plane = plane;
    const watch = stack.use(this.#watchInterface(config, chosen));
    const lasting = withoutFreshKeys(identity);
    const identityWatch =
      configured.kind.followsIdentity === true
        ? stack.use(
            new IdentityWatch({
              initial: setup,
              read: (signal) => identifyBackend(configured, config, past, lasting, signal),
              isStoreThere: () => figures.storeReachable,
              log,
            }),
          )
        : undefined;
    this.#show(plane, watch);
    this.#last = { plane, watch, identity: identityWatch };
    return this.#last;
  }

  /** What the backend before has made, as far as its configuration is known, and what else bears its names and addresses. */
  #formerLinks(
    config: NetworkConfig,
    setup: BackendSetup,
    external: ExternalInterface,
    ownNetworks: readonly IpPrefix[],
    tuns: readonly string[],
  ): readonly OwnLink[] {
    const { earlier, log } = this.#needs;
    const made = earlier.known === undefined ? [] : linksOfFormerBackend(earlier.known.config, setup, config, tuns);
    const interfaces = this.#network.interfaces.filter(({ name }) => name !== external.name);
    const left = linksLeftBehind(interfaces, ownNetworks, setup, config);
    const all = new Map([...made, ...left].map((link) => [link.name, link]));
    const names = left.map(({ name }) => name).join(', ');
    if (left.length > 0)
      log.info(`Left over from the previous agent: ${names}. Removing it once no other host needs it`);
    return [...all.values()];
  }

  /** None where others carry the packets: what looks like flanneld's is theirs, by hand or by the commands of the backend extension. */
  async #formerRoutes(
    { kind }: BackendSetup,
    external: ExternalInterface,
    signal: AbortSignal,
  ): Promise<readonly UnicastRoute[]> {
    const { host, earlier, log } = this.#needs;
    const isToLook = earlier.isFirst && kind.isCarriedByOthers !== true;
    const subnetEnv = isToLook ? await earlier.subnetEnv(signal) : undefined;
    if (subnetEnv === undefined) return [];
    const { routes } = await host.kernel().read(EMPTY_WANTED_STATE, signal);
    const left = formerRoutes(routes, subnetEnv, external);
    const [first] = left;
    if (first !== undefined)
      log.info(
        `Left over from flanneld: ${left.length} routes by ${external.name}, the first ${describeRoute(first)}. Taking over those to other hosts, and removing the rest`,
      );
    return left;
  }

  #choose(
    config: NetworkConfig,
    keep: KeepOptions,
    log: Pick<Log, 'info'>,
    signal: AbortSignal,
  ): Promise<ChosenInterface> {
    const { host, options, node } = this.#needs;
    const readNetwork: AgentHost['readNetwork'] = async (signal, options) => {
      this.#network = await host.readNetwork(signal, options);
      return this.#network;
    };
    return findExternalInterface({ readNetwork, options, config, node: node.addresses, keep }, log, signal);
  }

  #watchInterface(config: NetworkConfig, initial: ChosenInterface): InterfaceWatch {
    const { host, node, log } = this.#needs;
    return new InterfaceWatch({
      initial,
      choose: async (inUse, signal) => {
        const keep = { inUse, isRunning: true };
        try {
          return await this.#choose(config, keep, SILENT, signal);
        } catch {
          // What is asked for may have changed with it: the addresses of the Node.
          await node.refresh(signal);
          return await this.#choose(config, keep, SILENT, signal);
        }
      },
      notices: (present, signal) => host.externalNotices(present, signal),
      log,
    });
  }

  #show(plane: NodePlane, watch: InterfaceWatch): void {
    this.#watched.dispose();
    this.#watched = new DisposableStack();
    for (const [part, keeper] of [['interface', watch] as const, ...plane.keepers]) {
      this.#watched.use(this.#needs.readiness.watch(part, keeper));
    }
  }
}

/**
 * Whether a host could work with another configuration of the same networks; changes nothing.
 * @throws WeftError as the backend, as far as that can be known without opening anything.
 */
export async function checkConfig(
  config: NetworkConfig,
  external: ExternalInterface,
  identity: IdentityHost,
  signal: AbortSignal,
): Promise<void> {
  const past = { published: perFamily(() => undefined), networks: networksOf(config) };
  const setup = await identifyBackend(configuredBackend(config), config, past, untouched(identity), signal);
  openBackend(setup, config, external);
}

/** What would tell the plane to move ends before it. */
export async function endParts(parts: NodeParts | undefined): Promise<void> {
  await parts?.identity?.[Symbol.asyncDispose]();
  await parts?.watch[Symbol.asyncDispose]();
  await parts?.plane[Symbol.asyncDispose]();
}
