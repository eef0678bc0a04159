import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { requireCommands } from './prerequisites.ts';

describe('requireCommands', () => {
  it('names all that are missing and their packages at once', async () => {
    const missing = requireCommands([
      ['true', '--version'],
      ['/nonexistent/nft', '-v'],
      ['/nonexistent/ping', '-V'],
    ]);
    await assert.rejects(missing, {
      code: 'WEFT_COMMAND_MISSING',
      message: 'could not run /nonexistent/nft, /nonexistent/ping: there are no such programs',
      hint: 'On Debian: apt-get install nftables iputils-ping',
    });
  });

  it('accepts programs that only complain about the argument', async () => {
    await requireCommands([
      ['false', '--version'],
      ['sh', '-c'],
    ]);
  });
});
