import { basename } from 'node:path';
import pino from 'pino';

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

export interface LogOptions {
  readonly format: LogFormat;
  /** klog's -v. */
  readonly verbosity: number;
  /** Where complete lines go; standard error when left out. */
  readonly write?: (line: string) => void;
}

type Level = 'info' | 'warn' | 'error';
const SEVERITY: Readonly<Record<Level, string>> = { info: 'I', warn: 'W', error: 'E' };

/** Lines leave synchronously, so that the last one before an exit or a crash is not lost. */
export function createLog({ format, verbosity, write }: LogOptions): Log {
  const stderr = pino.destination({ fd: 2, sync: true });
  const emit = write ?? ((line: string) => void stderr.write(line));
  const json = pino(
    {
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      messageKey: 'message',
    },
    { write: emit },
  );
  const log = (level: Level, message: string, fields: LogFields | undefined): void => {
    const caller = callerOf();
    if (format === 'json') json[level]({ ...fields, caller }, message);
    else emit(klogLine(SEVERITY[level], new Date(), process.pid, caller, message, fields));
  };
  return {
    info: (message, fields) => log('info', message, fields),
    warn: (message, fields) => log('warn', message, fields),
    error: (message, fields) => log('error', message, fields),
    verbose: (level, message, fields) => {
      if (level <= verbosity) log('info', message, fields);
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
  const extra = Object.entries(fields ?? {}).map(([key, value]) => ` ${key}=${JSON.stringify(value)}`);
  return `${severity}${date} ${clock} ${String(pid).padStart(7)} ${caller}] ${message}${extra.join('')}\n`;
}

/** `agent.ts:120` of whoever called the log. */
function callerOf(): string {
  const frames = new Error().stack?.split('\n') ?? [];
  // Error, callerOf, log, the level's method, the caller.
  const match = /([^\s(]+):(\d+):\d+\)?$/.exec(frames[4] ?? '');
  return match === null ? 'weft:0' : `${basename(match[1] ?? '')}:${match[2]}`;
}
