import { backendKind } from '../backend/registry.ts';
import { type PluginSubnetEnv, parsePluginSubnetEnv } from '../cni/plugin-subnet-env.ts';
import { inspectNetConf, type NetConfInspection } from '../config/net-conf.ts';
import type { DoctorHost, DoctorPaths } from './host.ts';

/** What several checks start from. A check that needs one which is not there leaves it to the check of that one to say so. */
export async function readNetConf(host: DoctorHost, paths: DoctorPaths): Promise<NetConfInspection | undefined> {
  const text = await host.readText(paths.netConfigPath);
  return text === undefined ? undefined : inspectNetConf(text, { validation: 'kube', backends: backendKind });
}

/** `undefined` also when it cannot be used. */
export async function readSubnetEnv(host: DoctorHost, paths: DoctorPaths): Promise<PluginSubnetEnv | undefined> {
  const text = await host.readText(paths.subnetFile);
  if (text === undefined) return undefined;
  try {
    return parsePluginSubnetEnv(text, paths.subnetFile);
  } catch {
    return undefined;
  }
}

export const NOTHING_TO_COMPARE = 'nothing to compare with before there is a subnet.env (see subnet-env)';
