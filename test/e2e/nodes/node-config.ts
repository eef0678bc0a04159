/** Configuration files of a node's servers; paths are those that the node sees. */

/** {@link NodeOptions.dir} as the node sees it: the folder of the machine that it is in may be covered there. */
export const NODE_DIR = '/mnt/node';
export const CONTAINERD_SOCKET = '/run/containerd/containerd.sock';
/** The image of the tests' pods; it also stands in for Kubernetes' `pause`, from which every pod's sandbox is made. */
export const TOOLS_IMAGE = 'localhost/weft-e2e/tools:1';

export const CONTAINERD_CONFIG = `version = 2
root = "${NODE_DIR}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "${CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${TOOLS_IMAGE}"
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE runc may not lower the score and dies of it, with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`;

/** The service of the cluster's DNS, at its usual place in the default service network. */
export const CLUSTER_DNS = '10.96.0.10';

/** JSON is YAML. */
export function kubeletConfig(): string {
  return JSON.stringify({
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    containerRuntimeEndpoint: `unix://${CONTAINERD_SOCKET}`,
    cgroupDriver: 'cgroupfs',
    failCgroupV1: false,
    failSwapOn: false,
    enforceNodeAllocatable: ['none'],
    // The disk is the machine's: how full it is must not decide a test.
    evictionHard: {
      'memory.available': '1Mi',
      'nodefs.available': '0%',
      'imagefs.available': '0%',
      'nodefs.inodesFree': '0%',
    },
    imageGCHighThresholdPercent: 100,
    clusterDNS: [CLUSTER_DNS],
    clusterDomain: 'cluster.local',
    resolvConf: '',
    volumePluginDir: `${NODE_DIR}/kubelet/volume-plugins`,
  });
}

export function kubeProxyConfig(nodeName: string, kubeconfig: string): string {
  return JSON.stringify({
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    clientConnection: { kubeconfig },
    hostnameOverride: nodeName,
    mode: 'iptables',
    detectLocalMode: 'NodeCIDR',
    // Zero: leave the sysctls of connection tracking as they are, for they are the machine's.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
  });
}
