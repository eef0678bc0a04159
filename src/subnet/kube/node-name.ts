import { WeftError } from '../../errors.ts';
import type { ReportSink } from '../report.ts';
import { ApiStatusError, type KubeApi } from './kube-api.ts';
import { refused, retryTemporary } from './retry.ts';

/** Which Node this agent runs on; empty is not given. */
export interface NodeIdentity {
  /** NODE_NAME */
  readonly nodeName?: string;
  /** POD_NAME and POD_NAMESPACE, asked for when there is no node name. */
  readonly podName?: string;
  readonly podNamespace?: string;
}

/**
 * The Node that this agent runs on: the one that is named, else what the API says about the pod.
 * @throws WeftError WEFT_KUBE_CONFIG, WEFT_KUBE_REFUSED.
 */
export async function findNodeName(
  api: KubeApi,
  { nodeName: given = '', podName: pod = '', podNamespace: namespace = '' }: NodeIdentity,
  report: ReportSink,
  signal: AbortSignal,
): Promise<string> {
  if (given !== '') return given;
  if (pod === '' || namespace === '') {
    throw new WeftError('WEFT_KUBE_CONFIG', 'env variables POD_NAME and POD_NAMESPACE must be set', {
      hint: 'Set NODE_NAME to the name of this Node, or POD_NAME and POD_NAMESPACE through the downward API (metadata.name, metadata.namespace).',
    });
  }
  const what = `'${namespace}/${pod}'`;
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(pod)}`;
  let object: unknown;
  try {
    const get = () => api.json({ method: 'GET', path }, signal);
    object = await retryTemporary(`Error reading the pod ${what}`, get, report, signal);
  } catch (error) {
    if (!(error instanceof ApiStatusError)) throw error;
    throw refused(`error retrieving pod spec for ${what}: ${error.message}`, error);
  }
  const nodeName = (object as { spec?: { nodeName?: unknown } } | null)?.spec?.nodeName;
  if (typeof nodeName !== 'string' || nodeName === '') {
    throw new WeftError('WEFT_KUBE_CONFIG', `node name not present in pod spec ${what}`, {
      hint: 'The pod has not been scheduled: check that POD_NAME and POD_NAMESPACE name this very pod.',
    });
  }
  return nodeName;
}
