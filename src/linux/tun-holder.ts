import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { WeftError } from '../errors.ts';
import { IFF_TUN } from './constants.ts';
import type { PacketDescriptors } from './packet-descriptors.ts';
import { type OpenTunOptions, openTunDevice, type TunDevice } from './tun-device.ts';

/** Shows the network namespace that it was mounted in: the agent's own. */
const LINKS = '/sys/class/net';

/** The names of all links of this network namespace. */
export function readLinkNames(): readonly string[] {
  return readdirSync(LINKS);
}

/** The TUN devices there are, and the alias (IFLA_IFALIAS) of each. */
export function readTunDevices(): { readonly name: string; readonly alias: string | undefined }[] {
  return readLinkNames()
    .filter(isTun)
    .map((name) => ({ name, alias: attributeOf(name, 'ifalias') || undefined }));
}

/** A TAP device is of the same driver, but carries frames. */
function isTun(name: string): boolean {
  return (Number(attributeOf(name, 'tun_flags')) & IFF_TUN) !== 0;
}

/** `undefined` for a link without it, or that is gone meanwhile. */
function attributeOf(link: string, attribute: string): string | undefined {
  try {
    return readFileSync(join(LINKS, link, attribute), 'utf8').trim();
  } catch {
    return undefined;
  }
}

/**
 * The TUN device of this process, from when its name is chosen: two agents that start at once never choose the same one, for
 * whoever is attached to a device has it alone.
 */
export class TunHolder {
  readonly #descriptors: Pick<PacketDescriptors, 'takeTun'>;
  #held: TunDevice | undefined;
  /** What there was to say when it was opened: its user hears it. */
  #notices: string[] = [];

  /** @param descriptors what is open already. */
  constructor(descriptors: Pick<PacketDescriptors, 'takeTun'>) {
    this.#descriptors = descriptors;
  }

  /**
   * Attaches to the device and holds it until {@link open}; one that was held and not opened is let go.
   * @returns false when another process has it, or a device of that name is of another kind.
   * @throws WeftError WEFT_TUN_MISSING, WEFT_TUN_DENIED, WEFT_TUN_FAILED
   */
  take(name: string): boolean {
    this.#held?.[Symbol.dispose]();
    this.#held = undefined;
    this.#notices = [];
    this.#held = this.#descriptors.takeTun(name);
    if (this.#held !== undefined) return true;
    if (attributeOf(name, 'ifindex') !== undefined && !isTun(name)) return false;
    try {
      this.#held = openTunDevice({ name, onNotice: (text) => this.#notices.push(text) });
      return true;
    } catch (error) {
      if (error instanceof WeftError && error.code === 'WEFT_TUN_BUSY') return false;
      throw error;
    }
  }

  /** The device that is held, or as {@link openTunDevice}: the forwarder may be started anew. */
  open(options: OpenTunOptions): TunDevice {
    const held = this.#held;
    if (held?.name !== options.name) return this.#descriptors.takeTun(options.name) ?? openTunDevice(options);
    this.#held = undefined;
    for (const notice of this.#notices) options.onNotice?.(notice);
    return held;
  }
}
