import { foldKey, type JsonNode, jsonValueOf, parseGoJson } from '../lease/go-json.ts';
import type { JsonValue } from '../lease/lease.ts';
import { CNI_CODES, CniError } from './cni-error.ts';

export type JsonObject = Readonly<Record<string, JsonValue>>;

/** The plugin's part of the network configuration: what the runtime hands over on standard input. */
export interface PluginConfig {
  /** '' when it is not given, which means 0.1.0. */
  readonly cniVersion: string;
  readonly name: string;
  readonly subnetFile: string;
  readonly dataDir: string;
  readonly delegate: JsonObject | undefined;
  readonly ipam: JsonObject | undefined;
  readonly runtimeConfig: JsonObject | undefined;
  /** GC only: which containers of this network are still there. `undefined` when the runtime does not say. */
  readonly validAttachments: readonly Attachment[] | undefined;
}

/** What CNI calls an attachment: one interface of one container. */
export interface Attachment {
  readonly containerId: string;
  readonly ifName: string;
}

export const DEFAULT_SUBNET_FILE = '/run/flannel/subnet.env';
export const DEFAULT_DATA_DIR = '/var/lib/cni/flannel';

/** The key under which libcni 1.3 lists the attachments; the specification of that time had the second name. */
const ATTACHMENTS = ['cni.dev/valid-attachments', 'cni.dev/attachments'] as const;

/**
 * Reads a configuration as Go's decoder does: the case of the plugin's own keys does not matter, null is as good as
 * absent, unknown keys are ignored.
 *
 * @throws CniError (6) saying where the text is no JSON object; (999) naming the key that has a value of the wrong kind.
 */
export function parsePluginConfig(text: string): PluginConfig {
  const node = decodeConfig(text);
  try {
    return readConfig(new Members(node));
  } catch (error) {
    throw new CniError(CNI_CODES.internal, `failed to load flannel netconf file: ${(error as Error).message}`);
  }
}

function decodeConfig(text: string): ObjectNode {
  try {
    return parseObject(text);
  } catch (error) {
    throw new CniError(CNI_CODES.decodingFailure, `error unmarshall network config: ${(error as Error).message}`);
  }
}

function readConfig(members: Members): PluginConfig {
  return {
    cniVersion: members.string('cniVersion') ?? '',
    name: members.string('name') ?? '',
    subnetFile: members.string('subnetFile') ?? DEFAULT_SUBNET_FILE,
    dataDir: members.string('dataDir') ?? DEFAULT_DATA_DIR,
    delegate: members.object('delegate'),
    ipam: members.object('ipam'),
    runtimeConfig: members.object('runtimeConfig'),
    validAttachments: members.attachments(),
  };
}

/** What a saved delegate configuration says about itself; `undefined` when it cannot be used to run anything. */
export interface SavedConfigHead {
  readonly type: string;
  readonly name: string;
}

/** Reads the head of a saved delegate configuration. Never throws. */
export function parseSavedHead(text: string): SavedConfigHead | undefined {
  try {
    const members = new Members(parseObject(text));
    const type = members.string('type') ?? '';
    return type === '' ? undefined : { type, name: members.string('name') ?? '' };
  } catch {
    return undefined;
  }
}

type ObjectNode = Extract<JsonNode, { kind: 'object' }>;

function parseObject(text: string): ObjectNode {
  const parsed = parseGoJson(text);
  if (!parsed.ok) throw new Error(`${parsed.message} (line ${parsed.line}, column ${parsed.column})`);
  if (parsed.node.kind !== 'object') throw new Error(`want an object, got ${withArticle(parsed.node)}`);
  return parsed.node;
}

class Members {
  readonly #byKey = new Map<string, JsonNode>();

  /** Go takes a key in whatever case; of several, the last one that is not null. */
  constructor(node: ObjectNode) {
    for (const { key, value } of node.members) {
      if (value.kind !== 'null') this.#byKey.set(foldKey(key), value);
    }
  }

  #get<K extends JsonNode['kind']>(key: string, kind: K): Extract<JsonNode, { kind: K }> | undefined {
    const node = this.#byKey.get(foldKey(key));
    if (node === undefined) return undefined;
    if (node.kind !== kind) throw new Error(`${key}: want ${withArticle({ kind })}, got ${withArticle(node)}`);
    return node as Extract<JsonNode, { kind: K }>;
  }

  string(key: string): string | undefined {
    return this.#get(key, 'string')?.value;
  }

  object(key: string): JsonObject | undefined {
    const node = this.#get(key, 'object');
    return node && (jsonValueOf(node) as JsonObject);
  }

  attachments(): Attachment[] | undefined {
    for (const key of ATTACHMENTS) {
      const node = this.#get(key, 'array');
      if (node === undefined) continue;
      return node.items.map((item) => {
        if (item.kind !== 'object') throw new Error(`${key}: want objects, got ${withArticle(item)}`);
        const members = new Members(item);
        return { containerId: members.string('containerID') ?? '', ifName: members.string('ifname') ?? '' };
      });
    }
    return undefined;
  }
}

function withArticle({ kind }: Pick<JsonNode, 'kind'>): string {
  if (kind === 'null') return kind;
  return `${kind === 'array' || kind === 'object' ? 'an' : 'a'} ${kind}`;
}
