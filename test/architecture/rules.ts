import { posix } from 'node:path';
import { type Import, importsOf, mask } from './imports.ts';

/** Sources by path from the repository's root: `src/ip/prefix.ts`. */
export type Sources = ReadonlyMap<string, string>;

/**
 * Which folder of src/ may import which: the direction of imports of ARCHITECTURE.md. Type imports count as others do:
 * a type that has to come from above is in the wrong place. A folder may always import itself and the files directly in
 * src/. `subnet` alone means the files of that folder; its clients are the folders below it.
 */
export const mayImport: Readonly<Record<string, readonly string[]>> = {
  ip: [],
  ike: ['ip', 'desired'],
  lease: ['ip'],
  underlay: ['ip'],
  config: ['ip', 'lease', 'underlay'],
  'node-files': ['ip', 'lease', 'underlay', 'config'],
  cni: ['ip', 'lease', 'config', 'log'],
  log: [],
  events: ['ip', 'lease', 'log'],
  desired: ['ip', 'lease', 'log'],
  trafficmngr: ['ip', 'lease', 'config', 'log'],
  dataplane: ['ip', 'lease', 'config', 'log'],
  backend: ['ip', 'ike', 'lease', 'config', 'desired', 'dataplane', 'log'],
  cloud: ['ip', 'backend'],
  subnet: ['ip', 'lease', 'config', 'log', 'events'],
  'subnet/*': ['ip', 'lease', 'config', 'log', 'events', 'subnet', 'linux'],
  probe: ['ip'],
  capture: ['ip', 'desired'],
  linux: ['ip', 'ike', 'lease', 'underlay', 'config', 'desired', 'trafficmngr', 'dataplane', 'probe', 'log'],
  agent: [
    ...[
      'ip',
      'ike',
      'lease',
      'underlay',
      'config',
      'node-files',
      'cni',
      'desired',
      'trafficmngr',
      'dataplane',
      'backend',
      'subnet',
      'health',
      'metrics',
      'events',
      'api',
      'probe',
    ],
    'log',
  ],
  health: ['log'],
  metrics: ['ip', 'lease', 'dataplane', 'desired', 'probe', 'log'],
  doctor: [
    'ip',
    'lease',
    'config',
    'node-files',
    'cni',
    'desired',
    'trafficmngr',
    'dataplane',
    'backend',
    'subnet',
    'log',
  ],
  diagnosis: ['ip', 'lease', 'config', 'node-files', 'capture', 'doctor', 'probe', 'log'],
  api: [
    'ip',
    'lease',
    'config',
    'desired',
    'trafficmngr',
    'dataplane',
    'backend',
    'subnet',
    'events',
    'metrics',
    'probe',
    'log',
  ],
  lab: [
    'ip',
    'capture',
    'lease',
    'config',
    'desired',
    'trafficmngr',
    'dataplane',
    'backend',
    'subnet',
    'subnet/*',
    'linux',
    'log',
  ],
  ui: ['api', 'events', 'lab'],
  cmd: ['*'],
};

/** Where each npm package may be imported in src/: swapping or upgrading one then touches one place. */
export const packageHomes: Readonly<Record<string, readonly string[]>> = {
  koffi: ['src/linux/ffi.ts'],
  // Only makes the checked-in module anew: a development dependency, which an installation does not have.
  assemblyscript: ['src/dataplane/wasm/compile.ts'],
  pino: ['src/log/'],
  commander: ['src/cmd/weft/'],
  // What other programs print, and the agent's API. The agent reads its own formats by hand: each has messages of its own, and may
  // be half right.
  valibot: ['src/lab/', 'src/api/schema.ts'],
  '@valibot/to-json-schema': ['src/api/openapi.ts'],
  '@kubernetes/client-node': ['src/subnet/kube/'],
  '@grpc/grpc-js': ['src/subnet/etcd/'],
  '@grpc/proto-loader': ['src/subnet/etcd/'],
  'js-yaml': ['src/subnet/kube/'],
  'prom-client': ['src/metrics/'],
  preact: ['web/'],
  '@preact/signals': ['web/'],
  uplot: ['web/'],
  hono: ['src/api/', 'src/ui/'],
  '@hono/node-server': ['src/api/server.ts', 'src/ui/page-server.ts'],
};

/** The one file that starts processes: it alone decides about environment, output limits and who is killed at the end. */
const spawner = 'src/linux/run.ts';
/**
 * The CNI plugin starts its delegate by itself: one synchronous call is all it does, and loading streams and readline for
 * it would delay every pod.
 */
const cniSpawner = 'src/cmd/cni/delegate.ts';

const isTest = (path: string): boolean => path.endsWith('.test.ts') || path.startsWith('test/');
const isProduct = (path: string): boolean => path.startsWith('src/') && !isTest(path);
/** What runs in a browser. */
const isPage = (path: string): boolean => path.startsWith('web/') && !isTest(path);
/** Whose answers the page reads: it has their types, and nothing that would have to run in a browser. */
const PAGE_READS = ['api', 'ui', 'lab'];

/** The key of `mayImport` a file of src/ falls under; '' for the files directly in src/. */
function folderOf(path: string): string {
  const parts = path.split('/').slice(1, -1);
  if (parts[0] === 'subnet' && parts.length > 1) return 'subnet/*';
  return parts[0] ?? '';
}

/** The package of a specifier, `@scope/name/sub` → `@scope/name`; undefined for files and Node's own modules. */
function packageOf(specifier: string): string | undefined {
  if (specifier.startsWith('.') || specifier.startsWith('/') || specifier.startsWith('node:')) return undefined;
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

interface Edge extends Import {
  readonly from: string;
  /** Path from the root where the specifier is a file, else undefined. */
  readonly to: string | undefined;
}

function edgesOf(sources: Sources): Edge[] {
  return [...sources].flatMap(([from, source]) =>
    importsOf(source).map((found) => ({
      ...found,
      from,
      to:
        found.kind !== 'computed' && found.specifier.startsWith('.')
          ? posix.join(posix.dirname(from), found.specifier)
          : undefined,
    })),
  );
}

function checkDirection(edge: Edge): string | undefined {
  if (isPage(edge.from)) return checkPage(edge);
  if (!isProduct(edge.from) || edge.to === undefined) return undefined;
  if (!isProduct(edge.to)) return `${edge.from} imports ${edge.to}: the product may not need tests or benchmarks`;
  const from = folderOf(edge.from);
  const to = folderOf(edge.to);
  if (to === '') return undefined;
  if (from === '') return `${edge.from} imports ${edge.to}: files directly in src/ may import each other only`;
  const allowed = mayImport[from];
  if (allowed === undefined) return `${edge.from}: src/${from} has no line in mayImport (test/architecture/rules.ts)`;
  if (from === 'subnet/*' && to === 'subnet/*') {
    // Clients of different stores know nothing of each other.
    const client = (path: string): string => path.split('/')[2] ?? '';
    return client(edge.from) === client(edge.to)
      ? undefined
      : `${edge.from} imports ${edge.to}: another store's client`;
  }
  // The lab starts real agents: programs of ours beside it, not parts of it.
  if (edge.kind === 'url' && from === 'lab' && /^src\/cmd\/[^/]+\/main\.ts$/.test(edge.to)) return undefined;
  if (from === to || allowed.includes(to) || allowed.includes('*')) return undefined;
  return `${edge.from} imports ${edge.to}: ${from} may import ${allowed.join(', ') || 'nothing above it'} only`;
}

function checkPage({ from, to, kind, specifier }: Edge): string | undefined {
  if (specifier.startsWith('node:')) return `${from} imports ${specifier}: the page runs in a browser`;
  if (to === undefined || to.startsWith('web/')) return undefined;
  if (kind === 'type' && isProduct(to) && PAGE_READS.includes(folderOf(to))) return undefined;
  return `${from} imports ${to}: the page may import types of ${PAGE_READS.join(', ')} only`;
}

/** Commands that are about one backend: udp's data plane by itself, WireGuard's key. */
const aboutOneBackend: readonly string[] = ['src/cmd/weft/tunnel.ts', 'src/cmd/weft/rotate-key.ts'];

/** Whoever names one backend has to be changed with the next: others ask the registry. */
function checkBackends({ from, to }: Edge): string | undefined {
  const [, name] = /^src\/backend\/([^/]+)\.ts$/.exec(to ?? '') ?? [];
  if (name === undefined || !isProduct(from) || from.startsWith('src/backend/')) return undefined;
  if (['backend', 'registry', 'tun-name'].includes(name) || aboutOneBackend.includes(from)) return undefined;
  return `${from} imports ${to}: ask src/backend/registry.ts, which knows all backends`;
}

/** The same of the type in a lease or in net-conf.json. */
function checkBackendTypes(path: string, source: string): string[] {
  if (!isProduct(path) || path.startsWith('src/backend/')) return [];
  const [, name] = /\b(?:backendType|backend\.type)\s*[!=]==?\s*['"`]([^'"`]+)['"`]/.exec(source) ?? [];
  return name === undefined
    ? []
    : [`${path} compares a backend's type with ${name}: ask src/backend/registry.ts for what it does`];
}

function checkPackage(edge: Edge): string | undefined {
  if (edge.kind === 'url' || edge.kind === 'computed') return undefined;
  const name = packageOf(edge.specifier);
  if (name === undefined) return undefined;
  // Nobody but ffi.ts, tests and benchmarks included: two copies of a binding drift apart.
  if (!isProduct(edge.from) && !isPage(edge.from)) {
    return name === 'koffi' ? `${edge.from} imports koffi: only src/linux/ffi.ts may` : undefined;
  }
  const homes = packageHomes[name];
  if (homes === undefined)
    return `${edge.from} imports ${name}: it has no line in packageHomes (test/architecture/rules.ts)`;
  return homes.some((home) => edge.from.startsWith(home))
    ? undefined
    : `${edge.from} imports ${name}: only ${homes.join(', ')} may`;
}

function checkSpawn(edge: Edge): string | undefined {
  const spawns = /^(?:node:)?(?:child_process|cluster)$/.test(edge.specifier);
  return spawns && edge.from !== spawner && edge.from !== cniSpawner
    ? `${edge.from} imports ${edge.specifier}: only ${spawner} may`
    : undefined;
}

/** Every cycle of imports once, by its files; a `url` starts another program, so it does not close one. */
function cycles(sources: Sources, edges: readonly Edge[]): string[] {
  const next = new Map<string, string[]>([...sources.keys()].map((path) => [path, []]));
  for (const edge of edges) {
    if (edge.kind !== 'url' && edge.to !== undefined && next.has(edge.to)) next.get(edge.from)!.push(edge.to);
  }
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (path: string, trail: string[]): void => {
    const loop = trail.indexOf(path);
    if (loop !== -1) {
      found.push(`cycle of imports: ${[...trail.slice(loop), path].join(' → ')}`);
      return;
    }
    if (done.has(path)) return;
    for (const to of next.get(path)!) visit(to, [...trail, path]);
    done.add(path);
  };
  for (const path of sources.keys()) visit(path, []);
  return found;
}

/** npm packages that the CNI plugin loads, with the way to each: it starts once per pod, and every import delays that pod. */
function cniPackages(sources: Sources, edges: readonly Edge[]): string[] {
  const byFile = Map.groupBy(edges, (edge) => edge.from);
  const found: string[] = [];
  const seen = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const edge of byFile.get(path) ?? []) {
      if (edge.kind === 'type' || edge.kind === 'url') continue;
      const name = packageOf(edge.specifier);
      if (name !== undefined) found.push(`the CNI plugin loads ${name}: ${[...trail, path].join(' → ')}`);
      if (edge.to !== undefined) visit(edge.to, [...trail, path]);
    }
  };
  for (const path of sources.keys()) if (path.startsWith('src/cmd/cni/') && !isTest(path)) visit(path, []);
  return found;
}

/** What other programs load by its default export: `node --test-reporter`. */
const EXPORT_DEFAULT: readonly string[] = ['scripts/failed-files.ts', 'scripts/file-times.ts'];

function checkForm(path: string, source: string): string[] {
  const problems: string[] = [];
  const name = posix.basename(path);
  if (!/^[a-z0-9]+(?:-[a-z0-9]+)*(?:\.(?:test|as|d|fixture))?\.tsx?$/.test(name))
    problems.push(`${path}: file names are kebab-case`);
  if (name === 'index.ts') problems.push(`${path}: no index files; import the file that has the thing`);
  const { code } = mask(source);
  if (!EXPORT_DEFAULT.includes(path) && /\bexport\s+default\b|\bas\s+default\b/.test(code))
    problems.push(`${path}: no default exports`);
  if (/\benum\s+[A-Za-z_$][\w$]*\s*\{/.test(code)) problems.push(`${path}: no enums; use a union of literals`);
  const rest = code.replaceAll(/\bexport\b[^;"'()=]*?\bfrom\s*"\d+"\s*;?/g, '');
  if (rest !== code && rest.trim() === '') problems.push(`${path}: only re-exports, a barrel`);
  return problems;
}

/** Everything that is wrong with the tree, a line each; empty when nothing is. */
export function problemsOf(sources: Sources): string[] {
  const edges = edgesOf(sources);
  return [
    ...[...sources].flatMap(([path, source]) => [...checkForm(path, source), ...checkBackendTypes(path, source)]),
    ...edges.flatMap((edge) => {
      const missing = edge.to !== undefined && /\.tsx?$/.test(edge.to) && !sources.has(edge.to);
      const computed = edge.kind === 'computed' && isProduct(edge.from);
      return [
        missing ? `${edge.from} imports ${edge.to}, which does not exist` : undefined,
        computed ? `${edge.from} imports what '${edge.specifier}' computes: name the file` : undefined,
        checkDirection(edge),
        checkBackends(edge),
        checkPackage(edge),
        checkSpawn(edge),
      ].filter((problem) => problem !== undefined);
    }),
    ...cycles(sources, edges),
    ...cniPackages(sources, edges),
  ];
}
