import { load } from 'js-yaml';
import type { ManifestObject } from './manifest.ts';

/** As flannel's manifest: no mount of /dev/net. A device that the init container makes is in its own /dev. */
export function withoutTun(objects: readonly ManifestObject[]): ManifestObject[] {
  const copy = structuredClone(objects) as ManifestObject[];
  const pod = podOf(copy);
  const named = ({ name }: { name: string }) => name !== 'dev-net';
  pod.volumes = pod.volumes.filter(named);
  for (const container of [...pod.initContainers, ...pod.containers]) {
    container.volumeMounts = container.volumeMounts.filter(named);
  }
  return copy;
}

/** The same with flannel's capabilities: what the runtime gives by default, MKNOD among them, and two more. */
export function asInFlannelsManifest(objects: readonly ManifestObject[]): ManifestObject[] {
  const copy = withoutTun(objects);
  podOf(copy).containers[0]!.securityContext = {
    privileged: false,
    capabilities: { add: ['NET_ADMIN', 'NET_RAW'] },
  };
  return copy;
}

/** The items in backquotes, each a list of one in YAML. */
export function yamlIn(text: string): unknown[] {
  return [...text.matchAll(/`(- [^`]+)`/g)].map(([, item]) => (load(item!) as unknown[])[0]);
}

interface DaemonSet extends ManifestObject {
  spec: { template: { spec: AgentPod } };
}

interface AgentPod {
  volumes: { name: string }[];
  initContainers: { volumeMounts: { name: string }[] }[];
  containers: { volumeMounts: { name: string }[]; securityContext: object }[];
}

function podOf(objects: readonly ManifestObject[]): AgentPod {
  return (objects.find(({ kind }) => kind === 'DaemonSet') as DaemonSet).spec.template.spec;
}
