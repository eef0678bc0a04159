import type { Backend } from '../backend/backend.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { FastPathState } from '../dataplane/fast-path/mode.ts';
import type { Forwarder, ForwarderEvent } from '../dataplane/supervisor.ts';
import { WeftError } from '../errors.ts';
import type { RecordEvent } from '../events/event.ts';
import type { Log } from '../log/log.ts';
import type { AgentHost } from './ports.ts';

export interface RecordedForwarderParts {
  readonly host: Pick<AgentHost, 'forwarder'>;
  readonly options: FlanneldOptions;
  readonly onForwarderEvent: (event: ForwarderEvent) => void;
  readonly onFastPath: (state: FastPathState) => void;
  /** Told of what only another process can mend. */
  readonly onFatal: (error: unknown) => void;
  readonly record: RecordEvent;
  readonly log: Log;
}

/**
 * A forwarder as the options want it, which has opened nothing yet. What becomes of it and of the fast path is in the log and among
 * the agent's events.
 * @param backend asked at each start, for the interface may have moved.
 */
export function recordedForwarder(
  parts: RecordedForwarderParts,
  backend: () => Backend,
  fastPath: FlanneldOptions['fastPath'],
): Forwarder {
  const { host, options, onForwarderEvent, onFastPath, onFatal, record, log } = parts;
  return host.forwarder({
    underlay: () => {
      const { underlay } = backend();
      if (underlay === undefined) throw new TypeError('unreachable: a backend changed its nature');
      return underlay;
    },
    persistent: true,
    sourceCheck: options.sourceCheck,
    destinationCheck: options.destinationCheck,
    fastPath,
    fastPathIn: options.fastPathIn,
    fastPathRoot: options.fastPathDir,
    onNotice: (text) => log.warn(text),
    onFastPath: (state) => {
      onFastPath(state);
      log.info(state.text);
      record({
        kind: state.isOpen ? 'fast-path-opened' : 'fast-path-closed',
        severity: state.isOpen || fastPath === 'off' ? 'info' : 'warning',
        subject: backend().underlay?.tunName ?? '',
        text: state.text,
      });
    },
    onEvent: (event: ForwarderEvent) => {
      onForwarderEvent(event);
      const subject = backend().underlay?.tunName ?? '';
      if (event.type === 'started') {
        log.info('Packet workers are running');
        record({ kind: 'forwarder-started', severity: 'info', subject, text: 'packet workers are running' });
      } else if (event.type === 'stuck') {
        onFatal(new WeftError('WEFT_FORWARDER_FAILED', event.reason));
      } else {
        log.error(`The data path broke (${event.reason}); starting it again in ${event.retryInMs} ms`);
        record({
          ...{ kind: 'forwarder-failed', severity: 'error', subject, cause: event.reason },
          text: `the data path broke; starting it again in ${event.retryInMs} ms`,
        });
      }
    },
  });
}
