import { testBackend } from '../../test/contract/backend.ts';
import { backendKinds } from './registry.ts';

for (const kind of backendKinds()) {
  testBackend(kind, (family, host) => {
    if (kind.type === 'wireguard') return { PublicKey: Buffer.alloc(32, host).toString('base64'), Port: 51820 };
    if (kind.type === 'udp') return family === 'ipv6' ? { PayloadVersions: [4, 6] } : undefined;
    if (kind.type !== 'vxlan') return undefined;
    return { VNI: 1, VtepMAC: `02:00:00:00:${family === 'ipv4' ? '04' : '06'}:${host.toString(16).padStart(2, '0')}` };
  });
}
