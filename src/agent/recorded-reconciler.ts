import type { Kernel } from '../desired/kernel.ts';
import { describeOp } from '../desired/op.ts';
import { describeProblem } from '../desired/problem.ts';
import { Reconciler } from '../desired/reconciler.ts';
import type { RecordEvent } from '../events/event.ts';
import type { Log } from '../log/log.ts';

/** A reconciler whose changes, repairs, failures and problems are in the log and among the agent's events. */
export function recordedReconciler(kernel: Kernel, record: RecordEvent, log: Log): Reconciler {
  return new Reconciler({
    kernel,
    onChange: (ops) => {
      const operations = ops.map(describeOp);
      const more = operations.length > 1 ? ` and ${operations.length - 1} more` : '';
      const text = `${operations[0]}${more}`;
      record({ kind: 'kernel-changed', severity: 'info', subject: 'kernel', text, operations });
    },
    onRepair: (ops) => {
      for (const op of ops) {
        log.warn(`Restored what another program changed on this host: ${describeOp(op)}`);
        record({
          ...{ kind: 'kernel-repaired', severity: 'warning', subject: 'kernel', text: `restored: ${describeOp(op)}` },
          cause: 'another program has changed it on this host',
          operations: [describeOp(op)],
        });
      }
    },
    onFailure: ({ message }) => {
      log.error(message);
      record({ kind: 'kernel-failed', severity: 'error', subject: 'kernel', text: message });
    },
    onProblems: (problems) => {
      for (const problem of problems) {
        log.warn(`Kernel state: ${describeProblem(problem)}`);
        record({ kind: 'kernel-problem', severity: 'warning', subject: 'kernel', text: describeProblem(problem) });
      }
    },
  });
}
