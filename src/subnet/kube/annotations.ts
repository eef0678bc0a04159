import { WeftError } from '../../errors.ts';

/** The full names of the node annotations of one `--kube-annotation-prefix`. */
export interface AnnotationKeys {
  readonly kubeSubnetManager: string;
  readonly backendType: string;
  readonly backendData: string;
  readonly backendV6Data: string;
  readonly publicIp: string;
  readonly publicIpv6: string;
  /** Written by the user: copied into `publicIp`; need not exist on the node. */
  readonly publicIpOverwrite: string;
  readonly publicIpv6Overwrite: string;
  /** Written by the user: acts as `--public-ip`. */
  readonly nodePublicIp: string;
  readonly nodePublicIpv6: string;
}

export const DEFAULT_ANNOTATION_PREFIX = 'flannel.alpha.coreos.com';

/**
 * flannel's rules: `org.com` and `org.com/` give `org.com/backend-type`, `org.com/prefix` and `org.com/prefix-` give
 * `org.com/prefix-backend-type`. @throws WeftError WEFT_USAGE, with flannel's messages.
 */
export function annotationKeys(prefix: string): AnnotationKeys {
  const hint = `Give --kube-annotation-prefix as a domain with at least one dot, lower case, and at most one name after a slash, e.g. ${DEFAULT_ANNOTATION_PREFIX}`;
  if (prefix.split('/').length > 2) {
    throw new WeftError('WEFT_USAGE', `subnet/kube: prefix can contain at most single slash: "${prefix}"`, { hint });
  }
  let full = prefix.includes('/') ? prefix : `${prefix}/`;
  if (!full.endsWith('/') && !full.endsWith('-')) full += '-';
  if (!/^(?:[a-z0-9_-]+\.)+[a-z0-9_-]+\/(?:[a-z0-9_-]+-)?$/.test(full)) {
    throw new WeftError('WEFT_USAGE', `subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*: "${prefix}"`, {
      hint,
    });
  }
  return {
    kubeSubnetManager: `${full}kube-subnet-manager`,
    backendType: `${full}backend-type`,
    backendData: `${full}backend-data`,
    backendV6Data: `${full}backend-v6-data`,
    publicIp: `${full}public-ip`,
    publicIpv6: `${full}public-ipv6`,
    publicIpOverwrite: `${full}public-ip-overwrite`,
    publicIpv6Overwrite: `${full}public-ipv6-overwrite`,
    nodePublicIp: `${full}node-public-ip`,
    nodePublicIpv6: `${full}node-public-ipv6`,
  };
}
