import { readFile, writeFile } from 'node:fs/promises';
import type { KeyPair } from './certs.ts';

export interface KubeconfigUser {
  readonly token?: string;
  readonly tokenFile?: string;
  readonly clientCertificate?: KeyPair;
  /** Written as it is under `exec`. */
  readonly exec?: unknown;
}

/** Writes a kubeconfig, which JSON can be; returns its path. @param caFile of the server's authority. */
export async function writeKubeconfig(
  path: string,
  server: string,
  caFile: string,
  user: KubeconfigUser,
): Promise<string> {
  const caData = (await readFile(caFile)).toString('base64');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server, 'certificate-authority-data': caData } }],
    users: [
      {
        name: 'test',
        user: {
          ...(user.token === undefined ? {} : { token: user.token }),
          ...(user.tokenFile === undefined ? {} : { tokenFile: user.tokenFile }),
          ...(user.clientCertificate === undefined
            ? {}
            : {
                'client-certificate': user.clientCertificate.certFile,
                'client-key': user.clientCertificate.keyFile,
              }),
          ...(user.exec === undefined ? {} : { exec: user.exec }),
        },
      },
    ],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  };
  await writeFile(path, JSON.stringify(config, undefined, 2), { mode: 0o600 });
  return path;
}
