import type { Op } from '../op.ts';
import type { Problem } from '../problem.ts';
import type { ActualState, WantedState } from '../state.ts';
import type { LinkPlan } from './links.ts';

/** Of links of ours alone. A setting that this kernel does not have is left out: then there is nothing that it would keep off. */
export function planSysctls(
  wanted: Pick<WantedState, 'sysctls'>,
  actual: Pick<ActualState, 'sysctls'>,
  links: Pick<LinkPlan, 'own' | 'fresh'>,
  problems: Problem[],
): readonly Op[] {
  const byName = new Map(actual.sysctls.map((found) => [found.name, found]));
  return wanted.sysctls.flatMap((sysctl): Op[] => {
    if (!links.own.has(sysctl.link)) return [];
    const set: Op[] = [{ type: 'sysctl-set', sysctl }];
    if (links.fresh.has(sysctl.link)) return set;
    const found = byName.get(sysctl.name);
    if (found === undefined || found.value === sysctl.value) return [];
    if (found.writable) return set;
    if (sysctl.risk !== undefined) problems.push({ type: 'sysctl-read-only', sysctl, actual: found.value });
    return [];
  });
}
