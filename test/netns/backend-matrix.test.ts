import { describe, it } from 'node:test';
import {
  everyFamilyAnswers,
  extensionByRoutes,
  masqueradesBy,
  type Rules,
  type Stack,
  StackedOverlay,
} from './stacked-overlay.ts';

const BACKENDS: Readonly<Record<string, (folder: string) => object>> = {
  vxlan: () => ({ Type: 'vxlan' }),
  'host-gw': () => ({ Type: 'host-gw' }),
  extension: extensionByRoutes,
  udp: () => ({ Type: 'udp' }),
};
const CELLS: readonly (readonly [type: string, rules: Rules, stack: Stack])[] = [
  ...['vxlan', 'host-gw', 'extension', 'udp'].flatMap((type) => [
    [type, 'nftables', 'IPv4'] as const,
    [type, 'iptables', 'dual stack'] as const,
    [type, 'nftables', 'dual stack'] as const,
  ]),
];

/** The cells of docs/BACKENDS.md that no other test fills; two at a time, for much of each is waiting. */
describe('backends with either kind of rules, in each family', { concurrency: 2 }, () => {
  for (const [type, rules, stack] of CELLS) {
    it(`${type}, ${rules}, ${stack}: containers reach each other in packets of full size`, async () => {
      const { signal } = new AbortController();
      await using overlay = await StackedOverlay.create(stack, rules, BACKENDS[type]!, signal);
      const { topology, containers } = overlay;
      await everyFamilyAnswers(topology, containers);
      await masqueradesBy(rules, topology, containers[0]!);
    });
  }
});
