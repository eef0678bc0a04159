import { WeftError } from '../errors.ts';
import type { IpFamily } from '../ip/address.ts';

/** Reads a small file; `undefined` when it does not exist. */
export type ReadFile = (path: string, signal?: AbortSignal) => Promise<string | undefined>;

/** A setting that works against the user but does not stop the agent. */
export interface BridgeNetfilterWarning {
  readonly path: string;
  readonly message: string;
}

const WHY =
  'Without it, packets between two pods of one node pass the bridge unseen by iptables, so Services and network policies ' +
  'fail for them.';

/**
 * Whether bridged packets reach iptables (the kernel module br_netfilter), for the families in use. flannel looks only
 * whether the setting exists and ends when not; here it is also a warning when it is switched off. Not needed with
 * nftables. `WeftError.message` contains the line that flanneld prints.
 *
 * @throws WeftError WEFT_BRIDGE_NETFILTER when the module is not loaded.
 */
export async function checkBridgeNetfilter(
  families: readonly IpFamily[],
  read: ReadFile,
  signal?: AbortSignal,
): Promise<readonly BridgeNetfilterWarning[]> {
  const warnings: BridgeNetfilterWarning[] = [];
  for (const family of families) {
    const name = family === 4 ? 'bridge-nf-call-iptables' : 'bridge-nf-call-ip6tables';
    const path = `/proc/sys/net/bridge/${name}`;
    const value = await read(path, signal);
    if (value === undefined) {
      throw new WeftError(
        'WEFT_BRIDGE_NETFILTER',
        `Failed to check br_netfilter: stat ${path}: no such file or directory`,
        {
          hint:
            'Load the kernel module on the host: `modprobe br_netfilter`, and for the next boot ' +
            '`echo br_netfilter > /etc/modules-load.d/br_netfilter.conf`. ' +
            WHY,
        },
      );
    }
    if (value.trim() === '0') {
      warnings.push({ path, message: `${path} is 0: run \`sysctl -w net.bridge.${name}=1\` on the host. ${WHY}` });
    }
  }
  return warnings;
}
