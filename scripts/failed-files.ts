/**
 * A reporter of node:test for scripts/test.sh: each test file that failed on a line of its own, with what failed in it below,
 * indented.
 */
import { relative } from 'node:path';
import type { EventData } from 'node:test';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

function whatFailed({ name, details: { error } }: EventData.TestFail): string {
  return `✖ ${name}\n${inspect(error.cause ?? error)}`.replace(/^/gm, '    ');
}

export default async function* failedFiles(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const failures = new Map<string, string[]>();
  for await (const { type, data } of events) {
    if (type !== 'test:fail') continue;
    const { file, entryFile = file } = data as EventData.TestFail & { readonly entryFile?: string };
    if (entryFile === undefined) continue;
    const path = relative(process.cwd(), entryFile);
    const { failureType } = data.details.error as { readonly failureType?: string };
    // That a group fails because of what is in it says nothing new.
    const texts = failureType === 'subtestsFailed' ? [] : [whatFailed(data)];
    failures.set(path, [...(failures.get(path) ?? []), ...texts]);
  }
  for (const [file, texts] of failures) yield `${[file, ...texts].join('\n')}\n`;
}
