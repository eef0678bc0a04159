/**
 * `make image`: the container image as an OCI archive, dist/weft-image.tar, made with apt and tar, without Docker and without a
 * registry of images. Its file systems stay beside it, in dist/image-ARCH, for deploy/image/Dockerfile. Arguments: the
 * architectures, amd64 and arm64; without any, this machine's.
 */
import { copyFileSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describeError } from '../src/errors.ts';
import { architecturesOf, DIST, ROOT } from './packaging/architecture.ts';
import { bundle } from './packaging/bundle.ts';
import { makeExecutable, SBOM_NAME } from './packaging/executable.ts';
import { IMAGE_DEFAULTS, imageLabels, makeImageRoot } from './packaging/image-root.ts';
import { type Image, writeOciArchive } from './packaging/oci-archive.ts';

const signal = AbortSignal.timeout(1_200_000);
// What is made must not depend on who makes it.
process.umask(0o022);
try {
  const architectures = architecturesOf(process.argv.slice(2));
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const name = `localhost/weft:${version}`;
  const programs = await bundle(signal);
  const images: Image[] = [];
  for (const architecture of architectures) {
    await makeExecutable(programs, architecture, signal);
    const root = await makeImageRoot(join(DIST, `image-${architecture.name}`), programs, architecture, signal);
    images.push({ architecture, layers: [root.debian, root.weft] });
    const bill = join(root.weft, 'usr/share/doc/weft', SBOM_NAME);
    copyFileSync(bill, join(DIST, `weft-image-${architecture.name}.cdx.json`));
  }
  const path = join(DIST, 'weft-image.tar');
  rmSync(path, { force: true });
  await writeOciArchive(
    path,
    name,
    images,
    {
      ...IMAGE_DEFAULTS,
      Labels: imageLabels(version),
    },
    signal,
  );
  process.stdout.write(`${path}  ${name}  ${(statSync(path).size / 1e6).toFixed(1)} MB\n`);
} catch (error) {
  process.stderr.write(`weft: ${describeError(error)}\n`);
  process.exitCode = 1;
}
