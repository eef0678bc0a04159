import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { architecturesOf } from '../scripts/packaging/architecture.ts';
import { type Image, writeOciArchive } from '../scripts/packaging/oci-archive.ts';
import { run } from '../src/linux/run.ts';

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: { readonly os: string; readonly architecture: string };
}

const NAME = 'localhost/weft:1.2.3';
const CONFIGURATION = { Env: ['PATH=/bin'], Entrypoint: ['/bin/weft'], Labels: {} };
const signal = AbortSignal.timeout(60_000);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-oci-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A layer with this one file, a link to it, and times that are nobody's business. */
function layer(name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(path);
  writeFileSync(join(path, name), text);
  symlinkSync(name, join(path, `${name}-link`));
  utimesSync(join(path, name), Math.random() * 1e9, Math.random() * 1e9);
  return path;
}

/** The archive unpacked, by digest. */
class Layout {
  readonly #folder: string;
  constructor(path: string) {
    this.#folder = path;
  }
  static async of(archive: string): Promise<Layout> {
    const path = join(folder, 'layout');
    mkdirSync(path);
    await run(['tar', '-xf', archive, '-C', path]);
    return new Layout(path);
  }
  file<T>(name: string): T {
    return JSON.parse(readFileSync(join(this.#folder, name), 'utf8')) as T;
  }
  /** What the descriptor says, after comparing size and digest. */
  blob({ digest, size }: Descriptor): Buffer {
    const bytes = readFileSync(join(this.#folder, 'blobs', digest.replace(':', '/')));
    assert.equal(bytes.length, size);
    assert.equal(digestOf(bytes), digest);
    return bytes;
  }
  json<T>(descriptor: Descriptor): T {
    return JSON.parse(this.blob(descriptor).toString()) as T;
  }
}

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

describe('an OCI archive', () => {
  it('of one architecture: every digest fits, from the index down to the files of the layers', async () => {
    const [amd64] = architecturesOf(['amd64']);
    const images: Image[] = [{ architecture: amd64!, layers: [layer('base', 'below'), layer('top', 'above')] }];
    const path = join(folder, 'image.tar');
    await writeOciArchive(path, NAME, images, CONFIGURATION, signal);
    const layout = await Layout.of(path);
    assert.deepEqual(layout.file('oci-layout'), { imageLayoutVersion: '1.0.0' });
    const { manifests } = layout.file<{ manifests: Descriptor[] }>('index.json');
    assert.equal(manifests.length, 1);
    assert.equal(manifests[0]!.annotations?.['io.containerd.image.name'], NAME);
    assert.deepEqual(manifests[0]!.platform, { os: 'linux', architecture: 'amd64' });
    const manifest = layout.json<{ config: Descriptor; layers: Descriptor[] }>(manifests[0]!);
    const config = layout.json<{ config: object; architecture: string; rootfs: { diff_ids: string[] } }>(
      manifest.config,
    );
    assert.deepEqual(config.config, CONFIGURATION);
    assert.equal(config.architecture, 'amd64');
    const unpacked = manifest.layers.map((descriptor) => gunzipSync(layout.blob(descriptor)));
    assert.deepEqual(unpacked.map(digestOf), config.rootfs.diff_ids);
    const { stdout } = await run(['tar', '-tv', '--full-time', '--utc'], { stdin: unpacked[1]! });
    const names = stdout
      .trim()
      .split('\n')
      .map((line) => line.split(/\s+/));
    assert.deepEqual(
      names.map((words) => words[5]),
      ['top', 'top-link'],
    );
    for (const words of names) assert.deepEqual([words[1], words[3]], ['0/0', '1970-01-01']);
    // What `docker load` and kind look for, by that name.
    assert.match((await run(['tar', '-tf', path])).stdout, /^manifest\.json$/m);
    const [saved] = layout.file<{ Config: string; RepoTags: string[]; Layers: string[] }[]>('manifest.json');
    assert.deepEqual(saved?.RepoTags, [NAME]);
    assert.deepEqual(
      [saved.Config, ...saved.Layers],
      [manifest.config, ...manifest.layers].map(({ digest }) => `blobs/${digest.replace(':', '/')}`),
    );
  });

  it('of two architectures: an index of both under one name', async () => {
    const [amd64, arm64] = architecturesOf(['amd64', 'arm64']);
    const images: Image[] = [
      { architecture: amd64!, layers: [layer('for-amd64', 'a')] },
      { architecture: arm64!, layers: [layer('for-arm64', 'b')] },
    ];
    const path = join(folder, 'image.tar');
    await writeOciArchive(path, NAME, images, CONFIGURATION, signal);
    const layout = await Layout.of(path);
    const { manifests } = layout.file<{ manifests: Descriptor[] }>('index.json');
    assert.deepEqual(
      manifests.map(({ mediaType }) => mediaType),
      ['application/vnd.oci.image.index.v1+json'],
    );
    const index = layout.json<{ manifests: Descriptor[] }>(manifests[0]!);
    assert.deepEqual(
      index.manifests.map(({ platform }) => platform?.architecture),
      ['amd64', 'arm64'],
    );
    for (const descriptor of index.manifests) layout.blob(descriptor);
  });

  it('is the same to the byte when it is made again of the same files', async () => {
    const [amd64] = architecturesOf(['amd64']);
    const digests: string[] = [];
    for (const attempt of ['first', 'second']) {
      const path = join(folder, `${attempt}.tar`);
      const images: Image[] = [{ architecture: amd64!, layers: [layer('same', 'text')] }];
      await writeOciArchive(path, NAME, images, CONFIGURATION, signal);
      digests.push(digestOf(readFileSync(path)));
      rmSync(join(folder, 'same'), { recursive: true });
    }
    assert.equal(digests[0], digests[1]);
  });
});
