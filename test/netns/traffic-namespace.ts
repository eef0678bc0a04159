import { randomBytes } from 'node:crypto';
import { run } from '../../src/linux/run.ts';

export interface Namespace extends AsyncDisposable {
  readonly name: string;
}

/** An empty network namespace with loopback up; removed on disposal. */
export async function withNamespace(): Promise<Namespace> {
  const name = `weft-tm-${process.pid}-${randomBytes(3).toString('hex')}`;
  await run(['ip', 'netns', 'add', name]);
  await run(['ip', 'link', 'set', 'lo', 'up'], { netns: name });
  return {
    name,
    async [Symbol.asyncDispose]() {
      await run(['ip', 'netns', 'del', name]);
    },
  };
}
