import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { start } from '../../src/linux/run.ts';
import { eventually } from './waiting.ts';

const API_PORT = 6443;

/** Where a host finds what {@link bringKubeApi} has brought. */
export const KUBE_API_URL = `http://127.0.0.1:${API_PORT}`;

/** Brings a server of this process to a port of the host's namespace: a socket file is the same in both. */
export async function bringKubeApi(topology: Topology, host: LabHost, port: number): Promise<AsyncDisposable> {
  const socket = join(host.stateDirectory, 'api.sock');
  await using stack = new AsyncDisposableStack();
  stack.use(await start(['socat', `UNIX-LISTEN:${socket},fork`, `TCP4:127.0.0.1:${port}`], { stdout: 'ignore' }));
  await topology.start(host, ['socat', `TCP4-LISTEN:${API_PORT},fork,reuseaddr`, `UNIX-CONNECT:${socket}`], {
    stdout: 'ignore',
  });
  await eventually('the API server can be reached', async () => {
    const { stdout } = await topology.exec(host, ['ss', '-Htln', `sport = :${API_PORT}`]);
    return (stdout !== '' && existsSync(socket)) || undefined;
  });
  return stack.move();
}
