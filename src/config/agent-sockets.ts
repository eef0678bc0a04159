/** Where an agent listens on this host: beside its subnet file, by which each network has its own. */
import { dirname, join } from 'node:path';

/** Name of the API's socket, beside the subnet file. */
export const API_SOCKET_NAME = 'weft.sock';

/** With the default subnet file. */
export const DEFAULT_API_SOCKET = `/run/flannel/${API_SOCKET_NAME}`;

/** Where the API of an agent with this subnet file is served, unless `-api-socket` says otherwise. */
export function apiSocketPath(subnetFile: string): string {
  return join(dirname(subnetFile), API_SOCKET_NAME);
}

/** Where the agent with that subnet file hears of the next one. */
export function handOverPath(subnetFile: string): string {
  return `${subnetFile}.hand-over`;
}
