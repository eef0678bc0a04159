import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { Fault } from './diagnosis/bed.ts';
import { nodeFaults, storeFaults } from './diagnosis/faults-store.ts';
import { UDP_FAULTS } from './diagnosis/faults-udp.ts';
import { VXLAN_FAULTS } from './diagnosis/faults-vxlan.ts';

const document = readFileSync(new URL('../docs/DIAGNOSIS.md', import.meta.url), 'utf8');

const STORE_FAULTS = storeFaults({ etcdctl: unused, stop: unused, start: unused, setClock: unused });
const NODE_FAULTS = nodeFaults({ createNode: unused, deleteNode: unused });
const ALL = [...UDP_FAULTS, ...VXLAN_FAULTS, ...STORE_FAULTS, ...NODE_FAULTS];

function unused(): never {
  throw new Error('nothing is injected here');
}

/** Without the time that it took. */
function row({ name, where, faults }: Fault): string {
  const named = where === undefined ? '—' : where === 'this host' ? where : 'the pair';
  return `| ${name} | ${named} | ${faults.map((fault) => `\`${fault}\``).join(', ') || '—'} |`;
}

describe('docs/DIAGNOSIS.md', () => {
  const sections = document.split(/^## /m).filter((section) => section.startsWith('Faults with '));
  const listed = sections.flatMap((section) => section.split('\n').filter((line) => /^\| (?!fault )/.test(line)));

  it('lists the faults that are injected, in their order, and no others', () => {
    assert.deepEqual(
      listed.map((line) => line.replace(/ [^|]*\|$/, '')),
      ALL.map(row),
    );
  });

  it('says how many seconds each took: at most ten of at least 38 faults', () => {
    const seconds = listed.map((line) => Number(/\| (\d+\.\d) \|$/.exec(line)?.[1]));
    const shown = seconds.join(' ');
    assert.ok(
      seconds.every((one) => one > 0 && one < 30),
      shown,
    );
    const soon = ALL.filter(({ where }, at) => where !== undefined && seconds[at]! <= 10);
    assert.ok(soon.length >= 38, `${soon.length}: ${shown}`);
  });

  it('has forty of them at least, and names each once', () => {
    const broken = ALL.filter(({ where }) => where !== undefined);
    assert.ok(broken.length >= 40, `${broken.length}`);
    for (const faults of [UDP_FAULTS, VXLAN_FAULTS, STORE_FAULTS, NODE_FAULTS])
      assert.equal(new Set(faults.map(({ name }) => name)).size, faults.length);
  });
});
