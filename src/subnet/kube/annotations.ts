import { WeftError } from '../../errors.ts';
import type { PerFamily } from '../../ip/family.ts';

/** The full names of the node annotations of one `--kube-annotation-prefix`. */
export interface AnnotationKeys {
  readonly kubeSubnetManager: string;
  readonly backendType: string;
  readonly backendData: PerFamily<string>;
  readonly publicAddresses: PerFamily<string>;
  /** Written by the user: published in the place of the address that the node has; need not exist on the node. */
  readonly publicOverwrites: PerFamily<string>;
  /** Written by the user: act as `--public-ip` and `--public-ipv6`. */
  readonly nodePublicAddresses: PerFamily<string>;
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
    backendData: { ipv4: `${full}backend-data`, ipv6: `${full}backend-v6-data` },
    publicAddresses: { ipv4: `${full}public-ip`, ipv6: `${full}public-ipv6` },
    publicOverwrites: { ipv4: `${full}public-ip-overwrite`, ipv6: `${full}public-ipv6-overwrite` },
    nodePublicAddresses: { ipv4: `${full}node-public-ip`, ipv6: `${full}node-public-ipv6` },
  };
}
