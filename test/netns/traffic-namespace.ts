import { randomBytes } from 'node:crypto';
import { newRecord, writeRecord } from '../../src/lab/registry.ts';
import { removeLab } from '../../src/lab/removal.ts';
import { run } from '../../src/linux/run.ts';

export interface Namespace extends AsyncDisposable {
  readonly name: string;
}

/** An empty network namespace with loopback up; removed on disposal, or as a lab is whose maker was killed. */
export async function withNamespace(): Promise<Namespace> {
  const id = randomBytes(3).toString('hex');
  const name = `weft-tm-${process.pid}-${id}`;
  const record = newRecord({ id, purpose: 'test', namespaces: [name], staysAfterCrash: false });
  writeRecord(record);
  await run(['ip', 'netns', 'add', name]);
  await run(['ip', 'link', 'set', 'lo', 'up'], { netns: name });
  return {
    name,
    async [Symbol.asyncDispose]() {
      await removeLab(record);
    },
  };
}
