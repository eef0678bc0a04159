import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { DIST, ROOT } from '../../scripts/packaging/architecture.ts';
import { imageLabels } from '../../scripts/packaging/image-root.ts';
import { run } from '../../src/linux/run.ts';
import { cycloneDxProblems } from './cyclonedx/validate.ts';

const ARCHITECTURE = process.arch === 'arm64' ? 'arm64' : 'amd64';
/** `make e2e` has made it. */
const IMAGE = join(DIST, 'weft-image.tar');
const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };

const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex');

it('the image has the labels that registries and scanners show', async () => {
  const file = async (name: string): Promise<string> => (await run(['tar', '-xOf', IMAGE, name])).stdout;
  const [{ Config }] = JSON.parse(await file('manifest.json')) as [{ Config: string }];
  const { config } = JSON.parse(await file(Config)) as { config: { Labels: unknown } };
  assert.deepEqual(config.Labels, imageLabels(version));
});

describe('the image, made twice in different places by different people', () => {
  let folder: string;
  /** Copies of this tree, each with its image. */
  const copies: string[] = [];
  before(async () => {
    folder = mkdtempSync(join(ROOT, '.cache', 'image-twice-'));
    const places = [
      { copy: join(folder, 'a'), umask: '022', TZ: 'UTC' },
      { copy: join(folder, 'another-one'), umask: '077', TZ: 'Pacific/Kiritimati' },
    ];
    const skipped = ['node_modules', 'dist', '.cache', '.git'].map((one) => `--exclude=./${one}`);
    const script =
      'src=$1 to=$2; shift 2; tar -C "$src" "$@" -cf - . | tar -C "$to" -xf -; cp -al "$src/node_modules" "$to"';
    // What apt has downloaded already.
    const apt = join(ROOT, `.cache/apt-${ARCHITECTURE}`);
    for (const { copy } of places) {
      mkdirSync(join(copy, '.cache'), { recursive: true });
      await run(['bash', '-ec', script, 'bash', ROOT, copy, ...skipped]);
      if (existsSync(apt)) await run(['cp', '-a', apt, join(copy, '.cache')]);
    }
    for (const { copy, umask, TZ } of places) {
      const build = ['sh', '-ec', `umask ${umask}; exec scripts/run.sh scripts/build-image.ts ${ARCHITECTURE}`];
      // The commit of this tree, which git would find above, may change meanwhile.
      await run(build, { cwd: copy, env: { TZ, GIT_CEILING_DIRECTORIES: folder }, timeoutMs: 600_000 });
      copies.push(join(copy, 'dist'));
    }
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('is the same to the byte', () => {
    const [first, second] = copies as [string, string];
    for (const name of [`linux-${ARCHITECTURE}/weft`, `weft-image-${ARCHITECTURE}.cdx.json`, 'weft-image.tar']) {
      assert.equal(sha256(join(first, name)), sha256(join(second, name)), name);
    }
  });

  it("has a bill of materials, which is CycloneDX and has all of Debian's packages that are in it", async () => {
    const root = join(copies[0]!, `image-${ARCHITECTURE}`);
    const text = readFileSync(join(root, 'weft/usr/share/doc/weft/weft.cdx.json'), 'utf8');
    assert.equal(text, readFileSync(join(copies[0]!, `weft-image-${ARCHITECTURE}.cdx.json`), 'utf8'));
    assert.equal(await cycloneDxProblems(text), null);
    assert.notEqual(await cycloneDxProblems(text.replace('"components"', '"parts"')), null);
    const ofExecutable = readFileSync(join(copies[0]!, `linux-${ARCHITECTURE}/weft.cdx.json`), 'utf8');
    assert.equal(await cycloneDxProblems(ofExecutable), null);
    const { components } = JSON.parse(text) as { components: { name: string; purl: string }[] };
    const listed = components.filter(({ purl }) => purl.startsWith('pkg:deb/')).map(({ name }) => name);
    // Each package leaves its copyright there.
    const inImage = readdirSync(join(root, 'debian/usr/share/doc'));
    for (const name of ['libc6', 'iproute2', 'nftables', 'iptables', 'busybox', 'containernetworking-plugins']) {
      assert.ok(listed.includes(name), name);
    }
    assert.deepEqual(
      inImage.filter((name) => !listed.includes(name)),
      [],
    );
  });
});
