import { basename } from 'node:path';
import pino from 'pino';
import { printable, printableLines } from '../printable.ts';

export type LogFormat = 'text' | 'json';
export type LogFields = Readonly<Record<string, unknown>>;

/** What the rest of weft sees of logging. Messages that operators search for are flannel's, word for word. */
export interface Log {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** Shown from `-v=level` on (klog's V). */
  verbose(level: number, message: string, fields?: LogFields): void;
}

/** The log of a process, which counts what it could not write. */
export interface ProcessLog extends Log {
  /** Lines that nobody could take when they came: a pipe that is full or closed, a disk that is full. */
  readonly droppedLines: number;
}

/** klog's -vmodule: source files whose name without extension matches get a verbosity of their own. */
export interface ModuleVerbosity {
  /** With `*`, `?` and `[…]`, as in Go's path.Match. */
  readonly pattern: string;
  readonly level: number;
}

export interface LogOptions {
  readonly format: LogFormat;
  /** klog's -v. */
  readonly verbosity: number;
  /** The first that matches a file counts for it, as far as it asks for more than `verbosity`. */
  readonly vmodule?: readonly ModuleVerbosity[];
  /** klog's -log_backtrace_at: the call, as `file:line`, whose lines get a stack trace. */
  readonly backtraceAt?: string;
  /**
   * Takes a complete line, at once, so that the last one before an exit or a crash is not lost; `false` when it cannot. Must
   * neither wait nor throw: packets, leases and the end of the process depend on the thread that writes.
   */
  readonly write: (line: string) => unknown;
}

type Level = 'info' | 'warn' | 'error';
/** Of a message. Only the line with all flags comes near it. */
const MAX_MESSAGE = 4_000;
const SEVERITY: Readonly<Record<Level, string>> = { info: 'I', warn: 'W', error: 'E' };

/**
 * Messages may hold text from outside: see printable(). Lines that cannot be written are dropped and counted, never waited for;
 * the first that can be again is preceded by one that says how many were lost.
 */
export function createLog({ format, verbosity, vmodule = [], backtraceAt = '', write }: LogOptions): ProcessLog {
  let dropped = 0;
  let droppedInARow = 0;
  const put = (line: string): boolean => {
    const taken = write(line) !== false;
    if (!taken) dropped++;
    droppedInARow = taken ? 0 : droppedInARow + 1;
    return taken;
  };
  const emit = (line: string): void => {
    if (droppedInARow > 0) {
      const lost = droppedInARow;
      const text = `${lost} log lines before this one were lost because they could not be written`;
      // The line about them is none of them.
      if (write(lineOf('warn', text, 'log.ts:0', undefined, undefined)) === false) {
        dropped++;
        droppedInARow++;
        return;
      }
    }
    put(line);
  };
  const json = pino(
    {
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      messageKey: 'message',
    },
    { write: (line: string) => void (jsonLine = line) },
  );
  let jsonLine = '';
  const lineOf = (
    level: Level,
    message: string,
    caller: string,
    stack: string | undefined,
    fields: LogFields | undefined,
  ): string => {
    const shown = printableLines(message, MAX_MESSAGE);
    if (format === 'text') {
      const text = stack === undefined ? shown : `${shown}\n${stack}`;
      return klogLine(SEVERITY[level], new Date(), process.pid, caller, text, fields);
    }
    json[level]({ ...shownFields(fields), caller, ...(stack === undefined ? {} : { stack }) }, shown);
    return jsonLine;
  };
  const modules = vmodule.map(({ pattern, level }) => ({ matches: fileMatcher(pattern), level }));
  const log = (level: Level, message: string, fields: LogFields | undefined, frames = stackFrames(3)): void => {
    const caller = callerOf(frames);
    const stack = caller === backtraceAt ? frames.join('\n') : undefined;
    emit(lineOf(level, message, caller, stack, fields));
  };
  return {
    get droppedLines() {
      return dropped;
    },
    info: (message, fields) => log('info', message, fields),
    warn: (message, fields) => log('warn', message, fields),
    error: (message, fields) => log('error', message, fields),
    verbose: (level, message, fields) => {
      if (level > verbosity && modules.length === 0) return;
      const frames = stackFrames(2);
      const file = callerOf(frames).replace(/(\.\w+)?:\d+$/, '');
      const own = modules.find(({ matches }) => matches(file))?.level ?? verbosity;
      if (level <= Math.max(verbosity, own)) log('info', message, fields, frames);
    },
  };
}

/** klog's header: severity and date, time with microseconds, pid in 7 columns, file:line (klog.go, formatHeader). */
export function klogLine(
  severity: string,
  time: Date,
  pid: number,
  caller: string,
  message: string,
  fields: LogFields | undefined,
): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const date = `${two(time.getMonth() + 1)}${two(time.getDate())}`;
  const micros = String(time.getMilliseconds() * 1000).padStart(6, '0');
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${micros}`;
  const extra = Object.entries(fields ?? {}).map(([key, value]) => ` ${key}=${printable(JSON.stringify(value))}`);
  return `${severity}${date} ${clock} ${String(pid).padStart(7)} ${caller}] ${message}${extra.join('')}\n`;
}

function shownFields(fields: LogFields | undefined): LogFields {
  const shown = (value: unknown): unknown => (typeof value === 'string' ? printable(value) : value);
  return Object.fromEntries(Object.entries(fields ?? {}).map(([key, value]) => [key, shown(value)]));
}

/** The stack from whoever called the log on; `own`: so many functions of this file are above that. */
function stackFrames(own: number): string[] {
  // The first line is the error itself.
  return new Error().stack?.split('\n').slice(own + 1) ?? [];
}

/** `agent.ts:120` of the innermost frame. */
function callerOf(frames: readonly string[]): string {
  const match = /([^\s(]+):(\d+):\d+\)?$/.exec(frames[0] ?? '');
  return match === null ? 'weft:0' : `${basename(match[1] ?? '')}:${match[2]}`;
}

/** Go's path.Match on file names, of which none has a slash. A malformed pattern matches nothing. */
function fileMatcher(pattern: string): (name: string) => boolean {
  const source = pattern.replaceAll(/\\.|\[[^\]]*\]|[\s\S]/g, (part) => {
    if (part === '*') return '.*';
    if (part === '?') return '.';
    if (part.length > 1) return part;
    return part.replace(/[\\^$.|+()[\]{}]/, '\\$&');
  });
  try {
    const regexp = new RegExp(`^(?:${source})$`, 'su');
    return (name) => regexp.test(name);
  } catch {
    return () => false;
  }
}
