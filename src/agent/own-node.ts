import type { NodeAddresses } from '../config/node-addresses.ts';
import { type PerFamily, perFamily } from '../ip/family.ts';
import { ENTRY_BOUNDS } from '../lease/go-json.ts';
import { parseJsonWithin } from '../lease/json-value.ts';
import type { JsonValue } from '../lease/lease.ts';
import type { OpenSubnetManager } from './ports.ts';

/** Packets need the interface; what people wrote about it on the Node can be had again later. */
const PATIENCE_MS = 2_000;

/** What the store says, beside its lease, of the node that the agent runs on. */
export class OwnNode {
  #store: Pick<OpenSubnetManager, 'nodeAddresses' | 'published'> | undefined;
  /** The last that is known of them; `undefined` where the store knows no nodes. */
  addresses: NodeAddresses | undefined;

  /** Each try of the store brings a manager of its own. */
  opened(store: Pick<OpenSubnetManager, 'nodeAddresses' | 'published'>): void {
    this.#store = store;
  }

  /** Asks for the addresses, as long as it takes. @throws WeftError of the subnet manager. */
  async read(signal: AbortSignal): Promise<void> {
    this.addresses = await this.#store?.nodeAddresses?.(signal);
  }

  /** Asks for them again; never rejects, and does not wait long: what was known before holds while the store is away. */
  async refresh(signal: AbortSignal): Promise<void> {
    try {
      const patience = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]);
      this.addresses = (await this.#store?.nodeAddresses?.(patience)) ?? this.addresses;
    } catch {}
  }

  /** What the node has told its peers for its backend, as the store has it. Data that cannot be read is published anew. */
  async published(signal: AbortSignal): Promise<PerFamily<JsonValue | undefined>> {
    const texts = await this.#store?.published?.(signal);
    return perFamily((family) => jsonOrNothing(texts?.[family]));
  }
}

function jsonOrNothing(text: string | undefined): JsonValue | undefined {
  try {
    return text === undefined ? undefined : parseJsonWithin(text, ENTRY_BOUNDS);
  } catch {
    return undefined;
  }
}
