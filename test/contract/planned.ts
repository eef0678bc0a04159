import { Actual } from '../../src/desired/actual.ts';
import type { Op } from '../../src/desired/op.ts';
import { planAll } from '../../src/desired/plan/plan.ts';
import type { Problem } from '../../src/desired/problem.ts';
import type { ActualState, WantedState } from '../../src/desired/state.ts';
import { Wanted } from '../../src/desired/wanted.ts';

/** The plan for states as flat data, with all its problems in one list. */
export function planned(wanted: WantedState, actual: ActualState): { ops: readonly Op[]; problems: Problem[] } {
  const all = Wanted.of(wanted);
  const { ops, linkProblems, routeProblems } = planAll(all, new Actual(actual));
  const twice = [...all.routes.losers()].map((route): Problem => ({ type: 'route-twice', route }));
  return { ops, problems: [...linkProblems, ...routeProblems.values(), ...twice] };
}
