/** The network of every lab, also the cluster CIDR of its Kubernetes. */
export const LAB_NETWORK = '10.244.0.0/16';
