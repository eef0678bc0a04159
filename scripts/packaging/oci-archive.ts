import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { run } from '../../src/linux/run.ts';
import type { Architecture } from './architecture.ts';

const INDEX = 'application/vnd.oci.image.index.v1+json';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

export interface Image {
  readonly architecture: Architecture;
  /** Folders with what each layer adds, the lowest first. */
  readonly layers: readonly string[];
}

export interface ImageConfiguration {
  readonly Env: readonly string[];
  readonly Entrypoint: readonly string[];
  readonly Labels: Readonly<Record<string, string>>;
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/**
 * Writes images, of one architecture each, as one OCI archive (image-spec, image-layout.md): `ctr images import`, `podman load`
 * and `skopeo` read it. With a single architecture it is what `docker save` writes as well (manifest.json), which `docker load`
 * and `kind load image-archive` want. The same folders always make the same bytes.
 *
 * @param name with tag; container runtimes take names without a registry for ones of their default registry.
 */
export async function writeOciArchive(
  path: string,
  name: string,
  images: readonly Image[],
  configuration: ImageConfiguration,
  signal: AbortSignal,
): Promise<void> {
  const layout = `${path}.layout`;
  const blobs = join(layout, 'blobs', 'sha256');
  await rm(layout, { recursive: true, force: true });
  await mkdir(blobs, { recursive: true });
  const addBlob = async (mediaType: string, bytes: Uint8Array): Promise<Descriptor> => {
    const hash = sha256(bytes);
    await writeFile(join(blobs, hash), bytes);
    return { mediaType, digest: `sha256:${hash}`, size: bytes.byteLength };
  };
  const addJson = (mediaType: string, value: unknown): Promise<Descriptor> =>
    addBlob(mediaType, Buffer.from(JSON.stringify(value)));

  const manifests: (Descriptor & { readonly platform: { os: string; architecture: string } })[] = [];
  const saved: unknown[] = [];
  for (const { architecture, layers } of images) {
    const platform = { os: 'linux', architecture: architecture.name };
    const packed = [];
    for (const folder of layers) {
      const bytes = await packLayer(folder, `${layout}.tar`, signal);
      packed.push({ diffId: `sha256:${sha256(bytes)}`, blob: await addBlob(LAYER, await compress(bytes)) });
    }
    const config = await addJson(CONFIG, {
      ...platform,
      config: configuration,
      rootfs: { type: 'layers', diff_ids: packed.map(({ diffId }) => diffId) },
    });
    const blobsOfLayers = packed.map(({ blob }) => blob);
    const manifest = { schemaVersion: 2, mediaType: MANIFEST, config, layers: blobsOfLayers };
    manifests.push({ ...(await addJson(MANIFEST, manifest)), platform });
    saved.push({ Config: pathOf(config), RepoTags: [name], Layers: blobsOfLayers.map(pathOf) });
  }
  const annotations = { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name };
  const top =
    images.length === 1 ? manifests[0]! : await addJson(INDEX, { schemaVersion: 2, mediaType: INDEX, manifests });
  const index = { schemaVersion: 2, mediaType: INDEX, manifests: [{ ...top, annotations }] };
  await writeFile(join(layout, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  await writeFile(join(layout, 'index.json'), JSON.stringify(index));
  if (images.length === 1) await writeFile(join(layout, 'manifest.json'), JSON.stringify(saved));
  await pack(layout, path, signal);
  await rm(layout, { recursive: true });
}

const compress = (bytes: Uint8Array): Promise<Uint8Array> => promisify(gzip)(bytes, { level: 9 });

async function packLayer(folder: string, temporary: string, signal: AbortSignal): Promise<Uint8Array> {
  try {
    await pack(folder, temporary, signal);
    return await readFile(temporary);
  } finally {
    await rm(temporary, { force: true });
  }
}

/** Order, times and owners do not depend on who packs when. */
async function pack(folder: string, path: string, signal: AbortSignal): Promise<void> {
  const fixed = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--format=gnu'];
  // By name, for some readers look for `manifest.json` and not for `./manifest.json`.
  const names = (await readdir(folder)).sort();
  await run(['tar', ...fixed, '-C', folder, '-cf', path, ...names], { signal });
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Of a blob in the archive. */
function pathOf({ digest }: Descriptor): string {
  return `blobs/${digest.replace(':', '/')}`;
}
