import type { ManifestObject } from './manifest.ts';
import { CLUSTER_DNS, TOOLS_IMAGE } from './node-config.ts';

/** What the tests deploy beside weft. All of it is in the namespace `default` unless it says otherwise. */

export const WEB_PORT = 8080;
export const WEB_HOST_PORT = 18_080;
export const ECHO_PORT = 7_777;
export const WEB_LABELS = { app: 'web' };

const webContainer = (hostPort?: number) => ({
  name: 'web',
  image: TOOLS_IMAGE,
  command: ['/bin/sh', '-c', WEB_SCRIPT],
  ports: [{ containerPort: WEB_PORT, ...(hostPort === undefined ? {} : { hostPort }) }],
  readinessProbe: { httpGet: { path: '/', port: WEB_PORT }, periodSeconds: 1 },
});

/** An HTTP server that answers with the pod's name, and a TCP port that echoes. */
const WEB_SCRIPT = `hostname > /tmp/index.html
socat TCP-LISTEN:${ECHO_PORT},fork,reuseaddr EXEC:cat &
exec httpd -f -p ${WEB_PORT} -h /tmp`;

/** One web server a node, also on a port of the node. */
export const WEB_DAEMON_SET: ManifestObject = {
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata: { name: 'web', namespace: 'default' },
  spec: {
    selector: { matchLabels: WEB_LABELS },
    template: {
      metadata: { labels: WEB_LABELS },
      spec: { terminationGracePeriodSeconds: 0, containers: [webContainer(WEB_HOST_PORT)] },
    },
  },
};

/** Two web servers, on a node each, behind a service with an address of its own. */
export const SERVICE_OBJECTS: readonly ManifestObject[] = [
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'shop', namespace: 'default' },
    spec: {
      replicas: 2,
      selector: { matchLabels: { app: 'shop' } },
      template: {
        metadata: { labels: { app: 'shop' } },
        spec: {
          terminationGracePeriodSeconds: 0,
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: 'kubernetes.io/hostname',
              whenUnsatisfiable: 'DoNotSchedule',
              labelSelector: { matchLabels: { app: 'shop' } },
            },
          ],
          containers: [webContainer()],
        },
      },
    },
  },
  {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'shop', namespace: 'default' },
    spec: { selector: { app: 'shop' }, ports: [{ port: 80, targetPort: WEB_PORT }] },
  },
];

/** CoreDNS in a pod. Its program is the machine's, from `programs`, for an image with it would take longest of all to make. */
export function dnsObjects(programs: string): ManifestObject[] {
  const namespace = 'kube-system';
  const labels = { 'k8s-app': 'kube-dns' };
  const account = { kind: 'ServiceAccount', name: 'coredns', namespace };
  const role = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'coredns' };
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'coredns', namespace } },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'coredns' },
      rules: [
        { apiGroups: [''], resources: ['services', 'namespaces', 'endpoints', 'pods'], verbs: ['list', 'watch'] },
        { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
      ],
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'coredns' },
      roleRef: role,
      subjects: [account],
    },
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'coredns', namespace },
      data: { Corefile: '.:53 {\n  errors\n  ready\n  kubernetes cluster.local in-addr.arpa ip6.arpa\n}\n' },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'coredns', namespace },
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: 'coredns',
            terminationGracePeriodSeconds: 0,
            containers: [
              {
                name: 'coredns',
                image: TOOLS_IMAGE,
                command: ['/programs/bin/coredns', '-conf', '/etc/coredns/Corefile'],
                readinessProbe: { httpGet: { path: '/ready', port: 8181 }, periodSeconds: 1 },
                volumeMounts: [
                  { name: 'programs', mountPath: '/programs', readOnly: true },
                  { name: 'config', mountPath: '/etc/coredns' },
                ],
              },
            ],
            volumes: [
              { name: 'programs', hostPath: { path: programs, type: 'Directory' } },
              { name: 'config', configMap: { name: 'coredns' } },
            ],
          },
        },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'kube-dns', namespace },
      spec: {
        clusterIP: CLUSTER_DNS,
        selector: labels,
        ports: [
          { name: 'dns', port: 53, protocol: 'UDP' },
          { name: 'dns-tcp', port: 53, protocol: 'TCP' },
        ],
      },
    },
  ];
}
