import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import { LocalSubnetManager } from '../../subnet/local/local-subnet-manager.ts';
import type { ReportSink } from '../../subnet/report.ts';
import type { SubnetManager } from '../../subnet/subnet-manager.ts';

const MINUTE_MS = 60_000;

/** The subnet manager that the options name. Opens nothing yet but what that manager's documentation says. */
export async function createSubnetManager(
  options: FlanneldOptions,
  report: ReportSink,
  signal: AbortSignal,
): Promise<SubnetManager> {
  signal.throwIfAborted();
  const renewMarginMs = options.subnetLeaseRenewMarginMinutes * MINUTE_MS;
  switch (options.subnetManager) {
    case 'local':
      return new LocalSubnetManager({
        storePath: options.localStore,
        netConfPath: options.netConfigPath,
        renewMarginMs,
        report,
      });
    default:
      throw new Error(options.subnetManager);
  }
}
