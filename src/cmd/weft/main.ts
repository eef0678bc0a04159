/** `weft`: the command for people. One file a verb. */
import { CommanderError } from 'commander';
import { describeError, WeftError } from '../../errors.ts';
import { openOutput } from '../../linux/output.ts';
import { printableLines } from '../../printable.ts';
import { type ProcessLife, runProgram } from '../process-life.ts';
import { weftProgram } from './program.ts';

/** Wrong usage, as most Unix programs have it. */
const EXIT_USAGE = 2;
/** Errors of the lab end with the last lines of an agent's log. */
const MAX_ERROR = 10_000;

async function main(life: ProcessLife): Promise<number> {
  try {
    await weftProgram(life).parseAsync();
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
    process.stderr.write(`weft: ${printableLines(describeError(error), MAX_ERROR)}\n`);
    return error instanceof WeftError && error.code === 'WEFT_USAGE' ? EXIT_USAGE : 1;
  }
}

runProgram('weft', (text) => openOutput(2)(`weft: ${printableLines(text, MAX_ERROR)}\n`), main);
