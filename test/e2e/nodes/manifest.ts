import { readFile } from 'node:fs/promises';
import { loadAll } from 'js-yaml';
import { type KubeClient, KubeClientError, type KubeObject } from '../../../src/lab/servers/kube-client.ts';
import { eventually } from '../../netns/waiting.ts';

/** An object as a manifest has it. */
export interface ManifestObject extends KubeObject {
  apiVersion: string;
  kind: string;
  [key: string]: unknown;
}

interface ApiResource {
  readonly name: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

const FIELD_MANAGER = 'weft-e2e';

export async function readManifest(path: string): Promise<ManifestObject[]> {
  return (loadAll(await readFile(path, 'utf8')) as (ManifestObject | null)[]).filter((object) => object !== null);
}

/** `kubectl apply --server-side`, in the order of the manifest. */
export async function applyManifest(client: KubeClient, objects: readonly ManifestObject[]): Promise<void> {
  for (const object of objects) {
    const path = `${await pathOf(client, object)}?fieldManager=${FIELD_MANAGER}`;
    // JSON is YAML.
    await client.json('PATCH', path, object, 'application/apply-patch+yaml');
  }
}

/** `kubectl delete`: last first; resolves when every object is gone. */
export async function deleteManifest(
  client: KubeClient,
  objects: readonly ManifestObject[],
  timeoutMs: number,
): Promise<void> {
  const paths: string[] = [];
  for (const object of objects.toReversed()) paths.push(await pathOf(client, object));
  for (const path of paths) await ignoringAbsence(client.json('DELETE', `${path}?propagationPolicy=Foreground`));
  for (const path of paths) {
    await eventually(`${path} is gone`, async () => ((await exists(client, path)) ? undefined : true), timeoutMs);
  }
}

export async function exists(client: KubeClient, path: string): Promise<boolean> {
  return (await ignoringAbsence(client.get(path))) !== undefined;
}

/** The path of an object, as the API server's own list of kinds has it. */
async function pathOf(client: KubeClient, { apiVersion, kind, metadata }: ManifestObject): Promise<string> {
  const group = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const { resources } = await client.json<{ resources: ApiResource[] }>('GET', group);
  const resource = resources.find((one) => one.kind === kind && !one.name.includes('/'));
  if (resource === undefined) throw new Error(`the API server knows no ${kind} in ${apiVersion}`);
  const scope = resource.namespaced ? `/namespaces/${metadata.namespace ?? 'default'}` : '';
  return `${group}${scope}/${resource.name}/${metadata.name}`;
}

async function ignoringAbsence<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof KubeClientError && error.status === 404) return undefined;
    throw error;
  }
}
