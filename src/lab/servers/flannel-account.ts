import type { KubeClient, KubeObject } from './kube-client.ts';

export const FLANNEL_NAMESPACE = 'kube-flannel';
export const FLANNEL_USER = `system:serviceaccount:${FLANNEL_NAMESPACE}:flannel`;
/** flannel's namespace, service account and rights, as its manifest has them. */
export async function createFlannelAccount(admin: KubeClient): Promise<void> {
  const rbac = '/apis/rbac.authorization.k8s.io/v1';
  const named = (name: string, namespace?: string) => ({ metadata: { name, ...(namespace ? { namespace } : {}) } });
  await admin.create('/api/v1/namespaces', { kind: 'Namespace', ...named(FLANNEL_NAMESPACE) });
  await admin.create(`/api/v1/namespaces/${FLANNEL_NAMESPACE}/serviceaccounts`, named('flannel', FLANNEL_NAMESPACE));
  const role: KubeObject & { rules: unknown } = {
    ...named('flannel'),
    rules: [
      { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
      { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
      { apiGroups: [''], resources: ['nodes/status'], verbs: ['patch'] },
    ],
  };
  await admin.create(`${rbac}/clusterroles`, role);
  const binding: KubeObject & { roleRef: unknown; subjects: unknown } = {
    ...named('flannel'),
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'flannel' },
    subjects: [{ kind: 'ServiceAccount', name: 'flannel', namespace: FLANNEL_NAMESPACE }],
  };
  await admin.create(`${rbac}/clusterrolebindings`, binding);
}
