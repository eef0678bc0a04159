/** `flanneld`: the node agent, flag-compatible with flannel's. */

import { setTimeout as delay } from 'node:timers/promises';
import { runAgent } from '../../agent/agent.ts';
import { explainForHost } from '../../agent/explain-interface.ts';
import type { AgentHost } from '../../agent/ports.ts';
import { handOverPath } from '../../config/agent-sockets.ts';
import { type FlanneldOptions, parseFlanneldOptions } from '../../config/flanneld-options.ts';
import { describeFlanneldOptions } from '../../config/shown-flanneld-options.ts';
import { hasOwnNetwork, OWN_NETWORK, OWN_NETWORK_FILES } from '../../doctor/own-network.ts';
import { describeError, describeFault } from '../../errors.ts';
import { HandOver } from '../../linux/hand-over.ts';
import { openOutput } from '../../linux/output.ts';
import { PacketDescriptors } from '../../linux/packet-descriptors.ts';
import { readTextIfThere } from '../../linux/read-text.ts';
import { keepInServiceManager } from '../../linux/systemd-store.ts';
import { consoleInto } from '../../log/console.ts';
import { createLog } from '../../log/log.ts';
import { printable, printableLines } from '../../printable.ts';
import { traceTo } from '../../trace.ts';
import { type ProcessLife, runProgram } from '../process-life.ts';
import { VERSION } from '../version.ts';
import { thisHost } from './wire.ts';

/** Of a stop that somebody asked for; requests to the health server under way may take 3 s. */
const STOP_MS = 4_000;
/** How long a stop waits for an agent that has announced itself: it may have to wait for its store. */
const SUCCESSOR_MS = 10_000;
/** Within 2 s of a fatal error the process is gone. */
const FATAL_MS = 1_250;

/** A host may have hundreds of interfaces. */
const MAX_TABLE = 100_000;

async function main(life: ProcessLife): Promise<number> {
  const parsed = parseFlanneldOptions(process.argv.slice(2), process.env);
  switch (parsed.kind) {
    case 'help':
      process.stderr.write(parsed.text);
      return 0;
    case 'version':
      process.stderr.write(`${VERSION}\n`);
      return 0;
    case 'error':
      process.stderr.write(`flanneld: ${printable(describeError(parsed.error))}\n${parsed.usage ?? ''}`);
      return parsed.exitCode;
    case 'run':
      break;
  }
  const { options, warnings } = parsed;
  const log = createLog({
    format: options.logFormat,
    verbosity: options.verbosity,
    vmodule: options.vmodule,
    backtraceAt: options.logBacktraceAt,
    write: stderr,
  });
  life.lastWords = (text) => log.error(text);
  traceTo((level, text) => log.verbose(level, text));
  // Node's own way to show a warning waits for whoever reads standard error.
  process.removeAllListeners('warning');
  process.on('warning', (warning) => log.warn(describeFault(warning)));
  using _console = consoleInto(log);
  log.info(`CLI flags config: ${describeFlanneldOptions(options)}`);
  for (const warning of warnings) log.warn(warning);
  const { hostname, mountinfo } = OWN_NETWORK_FILES;
  if (hasOwnNetwork(readTextIfThere(hostname), readTextIfThere(mountinfo))) {
    log.warn(`${OWN_NETWORK.found}. ${OWN_NETWORK.remedy}`);
  }
  const notice = (text: string): void => log.warn(text);
  using descriptors = new PacketDescriptors(notice);
  keepInServiceManager(descriptors, process.env, notice);
  using handOver = new HandOver(handOverPath(options.subnetFile), descriptors, notice);
  const holdBack = (): Promise<void> | undefined => {
    const decided = handOver.successorDecided();
    if (decided === undefined) return undefined;
    log.info('Stopping: carrying packets until the next agent takes over');
    return Promise.race([decided, delay(SUCCESSOR_MS)]);
  };
  using stopped = life.untilStopped({ stopMs: STOP_MS, fatalMs: FATAL_MS, holdBack });
  const host = thisHost(options, descriptors, handOver, notice);
  if (options.explainIface) return await explain(host, options, stopped.signal);
  try {
    await runAgent(host, options, log, life, AbortSignal.any([stopped.signal, handOver.superseded]));
  } catch (error) {
    if (!life.hasFailed) log.error(describeError(error));
    return 1;
  }
  if (life.hasFailed) return 1;
  if (!stopped.signal.aborted) {
    log.info('The next agent has taken over; waiting to be stopped');
    const follower = handOver.left();
    await Promise.race([stopped.promise, follower]);
    if (!stopped.signal.aborted) {
      log.error('The next agent has exited and this one was not stopped: exiting, so that it is restarted');
      return 1;
    }
  }
  log.info('Exiting cleanly...');
  return 0;
}

/** `--explain-iface`: prints the table and changes nothing; the exit code says whether an interface would do. */
async function explain(host: AgentHost, options: FlanneldOptions, signal: AbortSignal): Promise<number> {
  try {
    const { text, found } = await explainForHost(host, options, signal);
    process.stdout.write(`${printableLines(text, MAX_TABLE)}\n`);
    return found ? 0 : 1;
  } catch (error) {
    process.stderr.write(`flanneld: ${printableLines(describeError(error), MAX_TABLE)}\n`);
    return 1;
  }
}

const stderr = openOutput(2);
runProgram('flanneld', (text) => stderr(`flanneld: ${printable(text)}\n`), main);
