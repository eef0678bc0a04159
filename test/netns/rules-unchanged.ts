/**
 * Run in a network namespace: each manager sets rules, and checks them again when nothing has changed, after a change that is not about
 * them, and after one of them has gone. Prints what each check did, as JSON. For rules-unchanged.test.ts.
 */

import { parsePrefix4 } from '../../src/ip/prefix.ts';
import { IptablesTrafficManager } from '../../src/linux/iptables.ts';
import { NftablesTrafficManager } from '../../src/linux/nftables.ts';
import { run } from '../../src/linux/run.ts';
import { traceTo } from '../../src/trace.ts';
import { trafficRules } from '../../src/trafficmngr/rules.ts';

/** How many programs a check ran, and how much it put right. */
export interface Check {
  readonly programs: number;
  readonly repairs: number;
}

const ipv4 = { network: parsePrefix4('10.244.0.0/16')!, subnet: parsePrefix4('10.244.1.0/24')! };
const wanted = trafficRules({ ipv4, ipv6: undefined, ipMasq: true, randomFully: true, forwardRules: true });
const MANAGERS = [
  [new NftablesTrafficManager(), ['nft', 'flush', 'table', 'ip', 'flannel-ipv4']],
  [new IptablesTrafficManager(), ['iptables', '-t', 'nat', '-F', 'FLANNEL-POSTRTG']],
] as const;
const found: Record<string, Check[]> = {};
let programs = 0;
for (const [manager, spoil] of MANAGERS) {
  const check = async (): Promise<void> => {
    programs = 0;
    const repairs = (await manager.ensure(wanted)).length;
    found[manager.kind] = [...(found[manager.kind] ?? []), { programs, repairs }];
  };
  traceTo(() => programs++);
  await check();
  await check();
  await check();
  await run(['nft', 'add', 'table', 'ip', `others-${manager.kind}`]);
  await check();
  await run([...spoil]);
  await check();
}
process.stdout.write(JSON.stringify(found));
