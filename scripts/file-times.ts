/**
 * A reporter of node:test for scripts/test.sh: when each test file starts and ends, at that moment. node:test shows what is in
 * the files in their order, so one file that hangs hides the results of all that ran beside it and after it.
 */
import { resolve } from 'node:path';
import type { EventData } from 'node:test';
import type { TestEvent } from 'node:test/reporters';

function seconds(milliseconds: number): string {
  return `${Math.round(milliseconds / 1000)} s`;
}

export default async function* fileTimes(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const from = performance.now();
  for await (const { type, data } of events) {
    if (type !== 'test:dequeue' && type !== 'test:complete') continue;
    const { name, file, nesting } = data as EventData.TestDequeue;
    // A file's own entry has its path as a name; what is in it does not.
    if (nesting !== 0 || resolve(name) !== file) continue;
    const at = `weft: after ${seconds(performance.now() - from)}: ${name}`;
    if (type === 'test:dequeue') yield `${at} starts\n`;
    else {
      const { passed, duration_ms } = (data as EventData.TestComplete).details;
      yield `${at} ${passed ? 'passed' : 'failed'}, ${seconds(duration_ms)}\n`;
    }
  }
}
