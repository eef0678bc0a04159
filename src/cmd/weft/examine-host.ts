import { DEFAULT_CONF_TEMPLATE } from '../../cni/conf-list.ts';
import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import { agentChecks } from '../../doctor/agent-checks.ts';
import { type Check, type CheckResult, runChecks } from '../../doctor/check.ts';
import { cniChecks } from '../../doctor/cni-checks.ts';
import type { DoctorHost, DoctorPaths } from '../../doctor/host.ts';
import { kernelChecks } from '../../doctor/kernel-checks.ts';
import { subnetEnvChecks } from '../../doctor/subnet-env-checks.ts';
import { fastPathCheck, tunChecks } from '../../doctor/tun-checks.ts';
import { printable, printableLines } from '../../printable.ts';
import { realHost } from './doctor-host.ts';

const TIMEOUT_MS = 10_000;
const MAX_FOUND = 4_000;

export const DEFAULT_PATHS: DoctorPaths = {
  subnetFile: '/run/flannel/subnet.env',
  netConfigPath: '/etc/kube-flannel/net-conf.json',
  healthzPort: 8081,
  cniConfDir: '/etc/cni/net.d',
  cniConfTemplate: DEFAULT_CONF_TEMPLATE,
  cniBinDir: '/opt/cni/bin',
};

/** All checks of this host. @param given what is not as usual. */
export function examineHost(given: Partial<DoctorPaths>, signal: AbortSignal): Promise<CheckResult[]> {
  const host = realHost();
  const paths = { ...DEFAULT_PATHS, ...given };
  const checks = [
    ...tunChecks(host, paths),
    fastPathCheck(host, 'optional'),
    ...kernelChecks(host, paths),
    ...subnetEnvChecks(host, paths),
    ...agentChecks(host, paths),
    ...cniChecks(host, paths),
  ];
  return resultsOf(checks, signal);
}

/** Fails where this process could not have the fast path. */
export function examineFastPath(signal: AbortSignal): Promise<CheckResult[]> {
  return resultsOf([fastPathCheck(realHost(), 'required')], signal);
}

/**
 * The same by the agent itself, with the paths of its flags. It knows its health and its fast path without asking; and where it has
 * nothing to do with pods, nothing is missing when no runtime could start them.
 */
export function examineAgentsHost(options: FlanneldOptions, signal: AbortSignal): Promise<CheckResult[]> {
  const { subnetFile, netConfigPath, healthzPort, cniConfDir, cniConfTemplate } = options;
  const host: DoctorHost = healthzPort === 0 ? { ...realHost(), get: async () => undefined } : realHost();
  const paths: DoctorPaths = {
    ...{ ...DEFAULT_PATHS, subnetFile, netConfigPath, healthzPort, cniConfTemplate },
    ...(cniConfDir !== '' && { cniConfDir }),
  };
  const hasPods = options.subnetManager === 'kube' || cniConfDir !== '';
  const needless = ['health', ...(options.skipBrNetfilterCheck ? ['br-netfilter'] : [])];
  const checks = [
    ...tunChecks(host, paths),
    ...kernelChecks(host, paths),
    ...subnetEnvChecks(host, paths),
    ...agentChecks(host, paths),
    ...(hasPods ? cniChecks(host, paths) : []),
  ];
  return resultsOf(
    checks.filter(({ name }) => !needless.includes(name)),
    signal,
  );
}

async function resultsOf(checks: readonly Check[], signal: AbortSignal): Promise<CheckResult[]> {
  return (await runChecks(checks, TIMEOUT_MS, signal)).map(shown);
}

/** What was found comes from files, programs and the agent: also in JSON, which people look at as well. */
function shown(result: CheckResult): CheckResult {
  const found = printableLines(result.found, MAX_FOUND);
  const looksAt = printable(result.looksAt);
  return result.status === 'ok'
    ? { ...result, looksAt, found }
    : { ...result, looksAt, found, remedy: printableLines(result.remedy, MAX_FOUND) };
}
