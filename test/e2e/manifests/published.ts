/**
 * What distributions give flanneld: its arguments, its environment, the folders of the host that it sees, and net-conf.json. The
 * facts are those of their manifests and templates; the text is ours.
 */
export interface PublishedUse {
  /** Whose, and which variant. */
  readonly name: string;
  readonly args: readonly string[];
  /** Beside what the test gives in place of the downward API and the service account. */
  readonly env: Readonly<Record<string, string>>;
  /** How it knows its node: the names of its pod and namespace, or of the node itself. */
  readonly identity: { readonly namespace: string } | 'node-name';
  /** How it reaches the API server: as a pod does, or by a kubeconfig file at this path. */
  readonly access: 'service-account' | { readonly kubeconfig: string };
  /** Where it finds net-conf.json, from the root of its file system. */
  readonly netConfPath: string;
  /** Whether the host's /run/flannel is there, which the CNI plugin reads. Canal's pods need no subnet.env. */
  readonly hasRunFlannel: boolean;
  readonly netConf: object;
  readonly podCidrs: readonly string[];
  /** On the Node before the agent starts. */
  readonly annotations?: Readonly<Record<string, string>>;
  readonly expected: {
    /** Without the prefix; `MAC` stands for a MAC address. */
    readonly annotations: Readonly<Record<string, string>>;
    readonly subnetEnv: readonly string[];
  };
}

const DEFAULT_NET_CONF = '/etc/kube-flannel/net-conf.json';
const AS_POD = { access: 'service-account', netConfPath: DEFAULT_NET_CONF } as const;
/** The defaults of flannel's own manifest, which several have copied. */
const QUEUE = { EVENT_QUEUE_DEPTH: '5000' };
const QUEUE_AND_CACHE = { ...QUEUE, CONT_WHEN_CACHE_NOT_READY: 'false' };
const MASQ_KUBE = ['--ip-masq', '--kube-subnet-mgr'];
const VXLAN = { Type: 'vxlan' };
const data = (vni: number): string => `{"VNI":${vni},"VtepMAC":"MAC"}`;

/** k3s runs flannel inside itself, with these values; as a program of its own it takes them by these flags. */
const K3S = {
  args: [
    ...MASQ_KUBE,
    '--kubeconfig-file=/var/lib/rancher/k3s/agent/kubelet.kubeconfig',
    '--net-config-path=/var/lib/rancher/k3s/agent/etc/flannel/net-conf.json',
  ],
  env: {},
  identity: 'node-name',
  access: { kubeconfig: '/var/lib/rancher/k3s/agent/kubelet.kubeconfig' },
  netConfPath: '/var/lib/rancher/k3s/agent/etc/flannel/net-conf.json',
  hasRunFlannel: true,
} as const;

/** What k3s gives flannel for its backend wireguard-native. The kernels that test/e2e/ runs on may lack the module: the guest has it. */
export const K3S_WIREGUARD = {
  ...{ Network: '10.42.0.0/16', EnableIPv6: false, EnableIPv4: true, IPv6Network: '::/0' },
  Backend: { Type: 'wireguard', PersistentKeepaliveInterval: 25, Mode: 'separate' },
};

const CANAL = {
  ...AS_POD,
  args: MASQ_KUBE,
  // Of a ConfigMap, empty unless somebody has set them.
  env: { FLANNELD_IFACE: '', FLANNELD_IFACE_REGEX: '', FLANNELD_IP_MASQ: 'true' },
  identity: { namespace: 'kube-system' },
  hasRunFlannel: false,
} as const;

const TALOS = {
  ...AS_POD,
  args: MASQ_KUBE,
  // Talos adds KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT of its own proxy to the API server.
  env: QUEUE_AND_CACHE,
  identity: { namespace: 'kube-system' },
  hasRunFlannel: true,
} as const;

export const PUBLISHED_USES: readonly PublishedUse[] = [
  {
    ...K3S,
    name: 'k3s, vxlan',
    netConf: {
      ...{ Network: '10.42.0.0/16', EnableIPv6: false, EnableIPv4: true, IPv6Network: '::/0' },
      Backend: VXLAN,
    },
    podCidrs: ['10.42.0.0/24'],
    expected: {
      annotations: { 'backend-data': data(1), 'backend-type': 'vxlan', 'public-ip': '10.98.0.11' },
      subnetEnv: ['FLANNEL_NETWORK=10.42.0.0/16', 'FLANNEL_SUBNET=10.42.0.1/24', 'FLANNEL_MTU=1450'],
    },
  },
  {
    ...K3S,
    name: 'k3s, host-gw in dual stack',
    netConf: {
      ...{ Network: '10.42.0.0/16', EnableIPv6: true, EnableIPv4: true, IPv6Network: '2001:db8:42::/56' },
      Backend: { Type: 'host-gw' },
    },
    podCidrs: ['10.42.1.0/24', '2001:db8:42:1::/64'],
    expected: {
      annotations: {
        ...{ 'backend-data': 'null', 'backend-v6-data': 'null', 'backend-type': 'host-gw' },
        ...{ 'public-ip': '10.98.0.12', 'public-ipv6': 'fd98::12' },
      },
      subnetEnv: [
        ...['FLANNEL_NETWORK=10.42.0.0/16', 'FLANNEL_SUBNET=10.42.1.1/24'],
        ...['FLANNEL_IPV6_NETWORK=2001:db8:42::/56', 'FLANNEL_IPV6_SUBNET=2001:db8:42:1::1/64', 'FLANNEL_MTU=1500'],
      ],
    },
  },
  {
    ...K3S,
    name: 'k3s, vxlan with IPv6 alone, and an external address',
    netConf: {
      ...{ Network: '0.0.0.0/0', EnableIPv6: true, EnableIPv4: false, IPv6Network: '2001:db8:42::/56' },
      Backend: VXLAN,
    },
    podCidrs: ['2001:db8:42:2::/64'],
    annotations: { 'public-ipv6-overwrite': '2001:db8::13' },
    expected: {
      annotations: { 'backend-v6-data': data(1), 'backend-type': 'vxlan', 'public-ipv6': '2001:db8::13' },
      // flannel: 1450, which is too much for an underlay of IPv6.
      subnetEnv: [
        ...['FLANNEL_IPV6_NETWORK=2001:db8:42::/56', 'FLANNEL_IPV6_SUBNET=2001:db8:42:2::1/64'],
        'FLANNEL_MTU=1430',
      ],
    },
  },
  {
    ...TALOS,
    name: 'Talos, port 4789',
    netConf: { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', Port: 4789 } },
    podCidrs: ['10.244.3.0/24'],
    expected: {
      annotations: { 'backend-data': data(1), 'backend-type': 'vxlan', 'public-ip': '10.98.0.14' },
      subnetEnv: ['FLANNEL_NETWORK=10.244.0.0/16', 'FLANNEL_SUBNET=10.244.3.1/24', 'FLANNEL_MTU=1450'],
    },
  },
  {
    ...TALOS,
    name: 'Talos, dual stack with nftables',
    netConf: {
      ...{ Network: '10.244.0.0/16', IPv6Network: 'fd00:10:244::/56', EnableIPv6: true, EnableNFTables: true },
      Backend: { Port: 4789, Type: 'vxlan', VNI: 4096 },
    },
    podCidrs: ['10.244.4.0/24', 'fd00:10:244:4::/64'],
    expected: {
      annotations: {
        ...{ 'backend-data': data(4096), 'backend-v6-data': data(4096), 'backend-type': 'vxlan' },
        ...{ 'public-ip': '10.98.0.15', 'public-ipv6': 'fd98::15' },
      },
      subnetEnv: [
        ...['FLANNEL_NETWORK=10.244.0.0/16', 'FLANNEL_SUBNET=10.244.4.1/24'],
        ...['FLANNEL_IPV6_NETWORK=fd00:10:244::/56', 'FLANNEL_IPV6_SUBNET=fd00:10:244:4::1/64', 'FLANNEL_MTU=1430'],
      ],
    },
  },
  {
    ...CANAL,
    name: 'Canal of RKE2',
    netConf: { Network: '10.42.0.0/16', Backend: VXLAN },
    podCidrs: ['10.42.5.0/24'],
    expected: {
      annotations: { 'backend-data': data(1), 'backend-type': 'vxlan', 'public-ip': '10.98.0.16' },
      subnetEnv: ['FLANNEL_NETWORK=10.42.0.0/16', 'FLANNEL_SUBNET=10.42.5.1/24', 'FLANNEL_MTU=1450'],
    },
  },
  {
    ...CANAL,
    name: 'Canal of RKE2, with an interface and port 4789',
    env: { FLANNELD_IFACE: 'eth0', FLANNELD_IFACE_REGEX: '^eth', FLANNELD_IP_MASQ: 'true' },
    netConf: { Network: '10.42.0.0/16', Backend: { Type: 'vxlan', Port: 4789 } },
    podCidrs: ['10.42.6.0/24'],
    expected: {
      annotations: { 'backend-data': data(1), 'backend-type': 'vxlan', 'public-ip': '10.98.0.17' },
      subnetEnv: ['FLANNEL_NETWORK=10.42.0.0/16', 'FLANNEL_SUBNET=10.42.6.1/24', 'FLANNEL_MTU=1450'],
    },
  },
  {
    ...AS_POD,
    name: 'kOps, vxlan',
    args: [...MASQ_KUBE, '--iptables-resync=5'],
    env: QUEUE_AND_CACHE,
    identity: { namespace: 'kube-flannel' },
    hasRunFlannel: true,
    netConf: { Network: '100.64.0.0/10', EnableNFTables: false, Backend: VXLAN },
    podCidrs: ['100.96.7.0/24'],
    expected: {
      annotations: { 'backend-data': data(1), 'backend-type': 'vxlan', 'public-ip': '10.98.0.18' },
      subnetEnv: ['FLANNEL_NETWORK=100.64.0.0/10', 'FLANNEL_SUBNET=100.96.7.1/24', 'FLANNEL_MTU=1450'],
    },
  },
  {
    ...AS_POD,
    name: 'kOps, udp',
    args: [...MASQ_KUBE, '--iptables-resync=5'],
    env: QUEUE_AND_CACHE,
    identity: { namespace: 'kube-flannel' },
    hasRunFlannel: true,
    netConf: { Network: '100.64.0.0/10', EnableNFTables: false, Backend: { Type: 'udp' } },
    podCidrs: ['100.96.8.0/24'],
    expected: {
      annotations: { 'backend-data': 'null', 'backend-type': '', 'public-ip': '10.98.0.19' },
      subnetEnv: ['FLANNEL_NETWORK=100.64.0.0/10', 'FLANNEL_SUBNET=100.96.8.1/24', 'FLANNEL_MTU=1472'],
    },
  },
  {
    ...AS_POD,
    name: 'minikube',
    args: MASQ_KUBE,
    env: QUEUE,
    identity: { namespace: 'kube-flannel' },
    hasRunFlannel: true,
    netConf: { Network: '10.244.0.0/16', Backend: VXLAN },
    podCidrs: ['10.244.9.0/24'],
    expected: {
      annotations: { 'backend-data': data(1), 'backend-type': 'vxlan', 'public-ip': '10.98.0.20' },
      subnetEnv: ['FLANNEL_NETWORK=10.244.0.0/16', 'FLANNEL_SUBNET=10.244.9.1/24', 'FLANNEL_MTU=1450'],
    },
  },
];
