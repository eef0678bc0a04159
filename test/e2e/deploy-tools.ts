import { join } from 'node:path';
import { goTools } from './go-tools.ts';

export interface DeployTools {
  readonly helm: string;
  readonly kustomize: string;
}

/** The real helm and kustomize, built from the Go module beside this file and kept in the cache. */
export async function deployTools(): Promise<DeployTools> {
  const { folder } = await goTools({
    name: 'deploy-tools',
    module: join(import.meta.dirname, 'deploy-tools'),
    modules: { 'helm.sh/helm/v3': 'helm', 'sigs.k8s.io/kustomize/kustomize/v5': 'kustomize' },
    packages: ['helm.sh/helm/v3/cmd/helm', 'sigs.k8s.io/kustomize/kustomize/v5'],
  });
  return { helm: join(folder, 'helm'), kustomize: join(folder, 'kustomize') };
}
