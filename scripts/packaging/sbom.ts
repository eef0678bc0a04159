import { createHash } from 'node:crypto';

/** What of an entry of package-lock.json (lockfileVersion 3) is used here. */
interface LockedPackage {
  readonly version: string;
  /** `sha512-…` of the archive, in base64. */
  readonly integrity: string;
  readonly license?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

export interface LockFile {
  readonly packages: Readonly<Record<string, Partial<LockedPackage>>>;
}

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  /** Of Debian: `12`. */
  readonly release: string;
  /** Of the .deb file, in hexadecimal. */
  readonly sha256: string;
}

export interface SbomSubject {
  readonly type: 'application' | 'container';
  readonly version: string;
  /** Keys of `packages` in the lock file: what is bundled, Node.js and koffi's native part among it. */
  readonly npm: readonly string[];
  readonly debian: readonly DebianPackage[];
}

interface Component {
  readonly type: 'application' | 'container' | 'library' | 'platform';
  readonly 'bom-ref': string;
  readonly name: string;
  readonly group?: string;
  readonly version: string;
  readonly purl?: string;
  readonly cpe?: string;
  readonly hashes?: readonly { readonly alg: 'SHA-256' | 'SHA-512'; readonly content: string }[];
  readonly licenses?: readonly unknown[];
}

/**
 * The software bill of materials of the executable or the image, CycloneDX 1.6 as JSON. It says nothing of when and where it was made: the
 * same parts give the same text.
 * @throws Error when a package is not in the lock file.
 */
export function sbomOf(lock: LockFile, { type, version, npm, debian }: SbomSubject): string {
  const keys = [...new Set(npm)].sort();
  const libraries = keys.map((key) => npmComponent(key, lockedPackage(lock, key)));
  const system = [...debian].sort((a, b) => (a.name < b.name ? -1 : 1)).map(debianComponent);
  const weft: Component = {
    type,
    'bom-ref': 'weft',
    name: 'weft',
    version,
    licenses: licensesOf('Apache-2.0'),
  };
  const dependencies = keys.map((key) => ({ ref: refOf(lock, key), dependsOn: dependenciesOf(lock, key, keys) }));
  const everything = [...libraries, ...system].map((component) => component['bom-ref']);
  const content = {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: { component: weft },
    components: [...libraries, ...system],
    dependencies: [{ ref: 'weft', dependsOn: everything }, ...dependencies],
  };
  const serialNumber = `urn:uuid:${uuidOf(JSON.stringify(content))}`;
  const { bomFormat, specVersion, ...rest } = content;
  return `${JSON.stringify({ bomFormat, specVersion, serialNumber, ...rest }, undefined, 2)}\n`;
}

/** The key of a package in the lock file, from a path that esbuild names. */
export function lockKeyOf(path: string): string {
  return path.slice(path.indexOf('node_modules/'));
}

function lockedPackage(lock: LockFile, key: string): LockedPackage {
  const entry = lock.packages[key];
  if (entry?.version === undefined || entry.integrity === undefined) {
    throw new Error(
      `making the bill of materials: package-lock.json has no ${key}, which is packaged; run npm install`,
    );
  }
  return entry as LockedPackage;
}

const nameOf = (key: string): string => key.slice(key.lastIndexOf('node_modules/') + 'node_modules/'.length);

/** package-url/purl-spec: everything but letters, digits and `.-_~` in percent signs. */
const encode = (text: string): string =>
  encodeURIComponent(text).replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);

function purlOf(key: string, version: string): string {
  return `pkg:npm/${nameOf(key).split('/').map(encode).join('/')}@${encode(version)}`;
}

/** Two places of one package in node_modules are two components only when their versions differ. */
function refOf(lock: LockFile, key: string): string {
  return `${purlOf(key, lockedPackage(lock, key).version)}#${key}`;
}

function npmComponent(key: string, locked: LockedPackage): Component {
  const [group, name] = nameOf(key).startsWith('@') ? nameOf(key).split('/') : [undefined, nameOf(key)];
  const isRuntime = /^node-linux-/.test(nameOf(key));
  return {
    type: isRuntime ? 'platform' : 'library',
    'bom-ref': `${purlOf(key, locked.version)}#${key}`,
    ...(group !== undefined && { group }),
    name: name!,
    version: locked.version,
    purl: purlOf(key, locked.version),
    // What advisories of Node.js, and of what is linked into it, are found by.
    ...(isRuntime && { cpe: `cpe:2.3:a:nodejs:node.js:${locked.version}:*:*:*:*:*:*:*` }),
    hashes: [
      { alg: 'SHA-512', content: Buffer.from(locked.integrity.replace('sha512-', ''), 'base64').toString('hex') },
    ],
    ...(locked.license !== undefined && { licenses: licensesOf(locked.license) }),
  };
}

function debianComponent({ name, version, architecture, release, sha256 }: DebianPackage): Component {
  const purl = `pkg:deb/debian/${encode(name)}@${encode(version)}?arch=${architecture}&distro=debian-${release}`;
  return { type: 'library', 'bom-ref': purl, name, version, purl, hashes: [{ alg: 'SHA-256', content: sha256 }] };
}

function licensesOf(license: string): unknown[] {
  return /^\(?[\w.+-]+(?: (?:AND|OR|WITH) [\w.+-]+)*\)?$/.test(license)
    ? [{ expression: license }]
    : [{ license: { name: license } }];
}

/** Of those that are packaged: looked up as Node.js does, in the package's own node_modules and then in those above. */
function dependenciesOf(lock: LockFile, key: string, packaged: readonly string[]): string[] {
  const { dependencies = {}, optionalDependencies = {} } = lockedPackage(lock, key);
  const found = Object.keys({ ...dependencies, ...optionalDependencies }).flatMap((name) => {
    for (let place = `${key}/`; ; place = place.slice(0, place.lastIndexOf('node_modules/', place.length - 2))) {
      const candidate = `${place}node_modules/${name}`;
      if (packaged.includes(candidate)) return [refOf(lock, candidate)];
      if (place === '') return [];
    }
  });
  return found.sort();
}

/** RFC 9562, version 8: its bits are those of a hash. */
function uuidOf(text: string): string {
  const digits = createHash('sha256').update(text).digest('hex');
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-8${digits.slice(13, 16)}-8${digits.slice(17, 20)}-${digits.slice(20, 32)}`;
}
