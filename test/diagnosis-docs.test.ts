import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { Fault } from './diagnosis/bed.ts';
import { UDP_FAULTS } from './diagnosis/udp-faults.ts';
import { VXLAN_FAULTS } from './diagnosis/vxlan-faults.ts';

const document = readFileSync(new URL('../docs/DIAGNOSIS.md', import.meta.url), 'utf8');

function row({ name, where, faults }: Fault): string {
  const named = where === undefined ? '—' : where === 'this host' ? where : 'the pair';
  return `| ${name} | ${named} | ${faults.map((fault) => `\`${fault}\``).join(', ') || '—'} |`;
}

describe('docs/DIAGNOSIS.md', () => {
  it('lists the faults that are injected, in their order, and no others', () => {
    const listed = document.split('\n').filter((line) => line.startsWith('| ') && !line.startsWith('| fault '));
    assert.deepEqual(listed, [...UDP_FAULTS, ...VXLAN_FAULTS].map(row));
  });

  it('has forty of them at least, and names each once', () => {
    const broken = [...UDP_FAULTS, ...VXLAN_FAULTS].filter(({ where }) => where !== undefined);
    assert.ok(broken.length >= 40, `${broken.length}`);
    for (const faults of [UDP_FAULTS, VXLAN_FAULTS])
      assert.equal(new Set(faults.map(({ name }) => name)).size, faults.length);
  });
});
