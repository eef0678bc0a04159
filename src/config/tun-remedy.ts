/** What stands between this process and a TUN device. */
export type TunObstacle =
  /** There is no /dev/net/tun, and it may not be made. */
  | 'missing'
  /** It is there, and the container's device rules, or permissions, keep us from opening it. */
  | 'device-denied'
  /** CAP_NET_ADMIN is missing. */
  | 'capability';

const ITEMS = {
  volume: '- {name: dev-net, hostPath: {path: /dev/net}}',
  mount: '- {name: dev-net, mountPath: /dev/net}',
  capability: '- NET_ADMIN',
  privileged: 'privileged: true',
} as const;

const EDIT = 'kubectl -n kube-flannel edit daemonset kube-flannel-ds';

/** What to do about it, on one line; in a pod with the very YAML, which may be pasted as it is. */
export function tunRemedy(obstacle: TunObstacle, inPod: boolean): string {
  switch (obstacle) {
    case 'missing':
      return inPod
        ? `Add to the DaemonSet (${EDIT}), under spec.template.spec.volumes: \`${ITEMS.volume}\`, and under volumeMounts of the container kube-flannel: \`${ITEMS.mount}\`. If the file is missing even then, the init container could not make it: modprobe tun on the node.`
        : 'On a host: modprobe tun. In a container: start it with --device /dev/net/tun --cap-add NET_ADMIN.';
    case 'device-denied':
      return inPod
        ? `The container runtime does not allow the device c 10:200 (runc 1.2.0 to 1.2.3 does not: update it). Or add to the DaemonSet (${EDIT}), under securityContext of the container kube-flannel: \`${ITEMS.privileged}\`.`
        : 'Run as root; in a container, allow the device: --device /dev/net/tun (c 10:200 rw).';
    case 'capability':
      return inPod
        ? `Add to the DaemonSet (${EDIT}), under securityContext.capabilities.add of the container kube-flannel: \`${ITEMS.capability}\`.`
        : 'Run as root; in a container: --cap-add NET_ADMIN.';
  }
}
