import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { Topology, type TopologyOptions } from '../../../src/lab/topology.ts';
import { bedDir, removeLeftovers } from './leftovers.ts';
import { startReaper } from './reaper.ts';

/** What machines with disks stand on. What dead runs have left is removed first, and a reaper removes this when its maker is killed. */
export class Bed implements AsyncDisposable {
  readonly topology: Topology;
  /** On a real file system; the machines' own, and empty. */
  readonly dir: string;
  readonly #cleanup: AsyncDisposableStack;

  private constructor(topology: Topology, dir: string, cleanup: AsyncDisposableStack) {
    this.topology = topology;
    this.dir = dir;
    this.#cleanup = cleanup;
  }

  /** @throws WeftError what {@link Topology.create} throws. */
  static async open(options: Pick<TopologyOptions, 'hosts' | 'store' | 'purpose'>): Promise<Bed> {
    await removeLeftovers();
    await using cleanup = new AsyncDisposableStack();
    cleanup.use(await startReaper());
    const id = randomBytes(3).toString('hex');
    const dir = bedDir(id);
    await mkdir(dir);
    cleanup.defer(() => rm(dir, { recursive: true, force: true }));
    // It is not all: its reaper, or the next bed, removes the rest before it.
    const topology = cleanup.use(
      await Topology.create({ ...options, containersPerHost: 0, id, staysAfterCrash: true }),
    );
    return new Bed(topology, dir, cleanup.move());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#cleanup.disposeAsync();
  }
}
