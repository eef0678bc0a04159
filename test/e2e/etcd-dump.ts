import type { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import { golden } from '../fakes/golden.ts';

interface DumpedKey {
  readonly key: string;
  readonly value: string;
  readonly create_revision: number;
  readonly mod_revision: number;
  readonly version: number;
  readonly lease?: number;
}

/** The store as the golden files have it; lease ids are random, so a lease is named after the keys it holds. */
export async function etcdDump(server: EtcdServer): Promise<string[]> {
  const text = await server.etcdctl('get', '--prefix', '', '--write-out=json');
  // Lease ids do not fit into a JavaScript number; which one it is does not matter here.
  const { header, kvs } = JSON.parse(text) as { header: { revision: number }; kvs: DumpedKey[] };
  const ids = (await server.etcdctl('lease', 'list')).split('\n').filter((line) => /^[0-9a-f]+$/.test(line));
  const leases = await Promise.all(ids.map((id) => server.etcdctl('lease', 'timetolive', id, '--keys')));
  const decode = (base64: string): string => Buffer.from(base64, 'base64').toString('utf8');
  return normalise([
    `revision ${header.revision}`,
    ...kvs.map(
      (kv) =>
        `${decode(kv.key)} | ${decode(kv.value)} | create_rev ${kv.create_revision} mod_rev ${kv.mod_revision} version ${kv.version} lease ${kv.lease ?? 0}`,
    ),
    '# leases',
    ...leases.map((line) => line.trim()),
  ]);
}

function normalise(lines: readonly string[]): string[] {
  return (
    lines
      .map((line) =>
        line.replace(/lease (?!0$)[0-9a-f]+/, 'lease ID').replace(/remaining\(86[34]\d\ds\)/, 'remaining(~1 day)'),
      )
      // flannel leaves the etcd leases of earlier runs to lapse; weft gives them back.
      .filter((line) => !line.endsWith('attached keys([])'))
  );
}

/** The same of a file in test/golden. */
export function goldenDump(scenario: string, file: string): string[] {
  const lines = golden(scenario, file).split('\n');
  return normalise(lines.filter((line) => line !== '' && !line.startsWith('# keys')));
}
