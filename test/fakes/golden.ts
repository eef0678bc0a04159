import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';

/** Files that a real flanneld left behind (test/golden), and what makes two of them comparable. */

function urlOf(scenario: string, file: string): URL {
  return new URL(`../golden/${scenario}/${file}.txt`, import.meta.url);
}

export function golden(scenario: string, file: string): string {
  return readFileSync(urlOf(scenario, file), 'utf8');
}

/** Empty when flanneld left no such file. */
export function goldenOrEmpty(scenario: string, file: string): string {
  return existsSync(urlOf(scenario, file)) ? golden(scenario, file) : '';
}

/** What `iptables-save` printed, without the time in its comments and the packet counters. */
export function normalSave(text: string): string[] {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return lines.map((line) => line.replace(/\[\d+:\d+\]/, '[0:0]'));
}

/** What `nft -a list ruleset` printed, without handles and counters. */
export function normalRuleset(text: string): string[] {
  return (
    text
      .split('\n')
      .map((line) => line.replace(/ ?# handle \d+/, '').replace(/packets \d+ bytes \d+/, 'packets 0 bytes 0'))
      // A remark of nft 1.0.6 on standard error, which the golden files include, about a target that only iptables knows.
      .map((line) => line.replace('XT target MASQUERADE not found', ''))
      .map((line) => line.trim().replace(/ +/g, ' '))
      .filter((line) => line !== '' && !line.startsWith('# Warning'))
  );
}

/** Which table was made first is chance. */
export function byTable(lines: string[]): Record<string, string[]> {
  const tables: Record<string, string[]> = {};
  let name = '';
  for (const line of lines) {
    if (line.startsWith('table ') || line.startsWith('*')) name = line;
    (tables[name] ??= []).push(line);
  }
  return tables;
}

/**
 * flannel's nftables flavour differs from its iptables flavour in these two rules; ours does not (docs/COMPATIBILITY.md).
 * The mark is compared as a whole, so a packet that kube-proxy and somebody else have both marked is not recognised; and
 * the fourth rule, with the two networks exchanged, leaves no packet for the last one.
 */
export function withNftCorrections(ruleset: string[], subnet: string): string[] {
  let corrected = 0;
  const lines = ruleset.map((line) => {
    switch (line) {
      case 'meta mark 0x00004000 return':
        corrected++;
        return 'meta mark & 0x00004000 == 0x00004000 return';
      case `ip saddr != ${subnet} ip daddr 10.244.0.0/16 return`:
        corrected++;
        return `ip saddr != 10.244.0.0/16 ip daddr ${subnet} return`;
      default:
        return line;
    }
  });
  assert.equal(corrected, 2, 'the golden file has both of flannel’s rules');
  return lines;
}
