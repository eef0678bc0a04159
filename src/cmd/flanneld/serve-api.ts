import type { Inspection } from '../../api/inspection.ts';
import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import { peerUid } from '../../linux/peer-credentials.ts';

/** The agent's API where its options say. */
export async function serveApi(
  { apiSocket, apiListen }: FlanneldOptions,
  inspection: Inspection,
  onProblem: (text: string) => void,
  signal: AbortSignal,
): Promise<AsyncDisposable> {
  const options = {
    inspection,
    socketPath: apiSocket === '' ? undefined : apiSocket,
    listen: apiListen && {
      ...{ port: apiListen.port, tokenFile: apiListen.tokenFile },
      host: apiListen.address === '' ? undefined : apiListen.address,
    },
    peerUid,
    ownUid: process.geteuid?.() ?? 0,
    onProblem,
  };
  // An agent that only says its version, or serves no API, does not load it.
  const { startApiServer } = await import('../../api/server.ts');
  return await startApiServer(options, signal);
}
