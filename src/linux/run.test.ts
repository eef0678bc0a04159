import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import { WeftError } from '../errors.ts';
import { lines, run, start } from './run.ts';

const node = process.execPath;
const script = (text: string) => [node, '-e', text];

async function linesOf(stream: Readable): Promise<string[]> {
  const all: string[] = [];
  for await (const line of lines(stream)) all.push(line);
  return all;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('run', () => {
  it('gives output and feeds standard input', async () => {
    const result = await run(['cat'], { stdin: 'grüße\n' });
    assert.deepEqual(result, { stdout: 'grüße\n', stderr: '', exitCode: 0 });
  });

  it('hands arguments over as they are: no shell reads them', async () => {
    const hostile = [
      '$(touch /tmp/weft-shell)',
      '; id',
      '`id`',
      '&& id',
      '| id',
      '> x',
      '*',
      "'",
      '"',
      '\\',
      '$HOME',
      '-n\nx',
    ];
    for (const argument of hostile) assert.equal((await run(['printf', '%s', argument])).stdout, argument);
  });

  it('does not mind a child that ignores a large standard input', async () => {
    const result = await run(['true'], { stdin: 'x'.repeat(1 << 20) });
    assert.equal(result.exitCode, 0);
  });

  it('speaks C, whatever the locale, and adds variables', async () => {
    const { stdout } = await run(script('console.log(process.env.LC_ALL, process.env.FLAVOUR)'), {
      env: { FLAVOUR: 'mild' },
    });
    assert.equal(stdout, 'C mild\n');
  });

  it('finds system programs without a PATH', async () => {
    const { stdout } = await run(['ip', '-V'], { env: { PATH: '/nonexistent' } });
    assert.match(stdout, /iproute2/);
  });

  it('names command, exit code and standard error of a failure', async () => {
    await assert.rejects(run(script('console.error("no luck"); process.exit(3)')), (error: unknown) => {
      assert(error instanceof WeftError);
      assert.equal(error.code, 'WEFT_COMMAND_FAILED');
      assert.match(error.message, /-e '.*: exit code 3: no luck$/s);
      return true;
    });
  });

  it('accepts the exit codes it is told to accept', async () => {
    const { exitCode } = await run(script('process.exit(7)'), { okExitCodes: 'any' });
    assert.equal(exitCode, 7);
    assert.equal((await run(['false'], { okExitCodes: [0, 1] })).exitCode, 1);
  });

  it('names the package of a missing command', async () => {
    await assert.rejects(run(['/nonexistent/bin/nft']), (error: unknown) => {
      assert(error instanceof WeftError);
      assert.equal(error.code, 'WEFT_COMMAND_MISSING');
      assert.equal(error.hint, 'On Debian: apt-get install nftables');
      return true;
    });
  });

  it('ends a command that does not end in time', async () => {
    await assert.rejects(run(['sleep', '1000'], { timeoutMs: 20 }), {
      code: 'WEFT_COMMAND_FAILED',
      message: 'sleep 1000: did not finish within 20 ms',
    });
  });

  it('ends although what the command has left behind holds its output open', { timeout: 20_000 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weft-orphan-'));
    const file = join(folder, 'pid');
    const stop = new AbortController();
    const running = run(['sh', '-c', 'sleep 1000 & echo $! > "$0.new"; mv "$0.new" "$0"', file], {
      signal: stop.signal,
      killGraceMs: 20,
    });
    running.catch(() => {});
    await eventually('the child of the child runs', () => existsSync(file));
    stop.abort(new Error('told to'));
    await assert.rejects(running, { message: 'told to' });
    process.kill(Number(readFileSync(file, 'utf8')));
    await rm(folder, { recursive: true });
  });

  it('reports an end by a signal', async () => {
    await assert.rejects(run(script('process.kill(process.pid, "SIGKILL")'), { okExitCodes: 'any' }), {
      code: 'WEFT_COMMAND_FAILED',
      message: /ended by SIGKILL/,
    });
  });

  it('is an error, and no more, that there are no descriptors left; goes on once there are', async () => {
    const program = `
      import { closeSync, openSync } from 'node:fs';
      import { run, start } from ${JSON.stringify(new URL('./run.ts', import.meta.url).href)};
      const held = [];
      try { for (;;) held.push(openSync('/dev/null')); } catch {}
      const told = [];
      for (const attempt of [() => run(['true']), () => run(['cat'], { stdin: 'x' }), () => start(['true'])]) {
        await attempt().then(() => told.push('ran'), (error) => told.push(error.code + ': ' + error.message + '; ' + error.hint));
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
      for (const fd of held) closeSync(fd);
      told.push((await run(['echo', 'again'])).stdout);
      console.log(JSON.stringify(told));
    `;
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', program];
    const { stdout } = await run(['sh', '-c', 'ulimit -n 100; exec "$@"', 'sh', ...argv], { timeoutMs: 60_000 });
    const told = JSON.parse(stdout) as string[];
    for (const text of told.slice(0, 3)) {
      assert.match(
        text,
        /^WEFT_COMMAND_FAILED: (true|cat) could not be started: spawn .*EMFILE; Too many files are open/,
      );
    }
    assert.deepEqual(told.slice(3), ['again\n']);
  });

  it('rejects with the reason of the signal', async () => {
    const reason = new Error('enough');
    await assert.rejects(run(['sleep', '1000'], { signal: AbortSignal.abort(reason) }), reason);
    const controller = new AbortController();
    const running = run(['sleep', '1000'], { signal: controller.signal });
    controller.abort(reason);
    await assert.rejects(running, reason);
  });
});

describe('start', () => {
  it('leaves a detached program running when this process ends, and still ends it on disposal', async () => {
    const starter = script(`
      const { start } = await import(${JSON.stringify(new URL('./run.ts', import.meta.url).href)});
      const child = await start(['sleep', '60'], { stdout: 'ignore', stderr: 'ignore', detached: true });
      console.log(child.pid);
    `);
    const { stdout } = await run(starter, { timeoutMs: 20_000 });
    const pid = Number(stdout);
    assert(isAlive(pid));
    process.kill(pid, 'SIGKILL');
    const child = await start(['sleep', '60'], { stdout: 'ignore', stderr: 'ignore', detached: true });
    await child[Symbol.asyncDispose]();
    assert.equal((await child.exited).signal, 'SIGTERM');
    await assert.rejects(start(['sleep', '60'], { detached: true }), TypeError);
  });

  it('gives the lines, the pid and the exit', async () => {
    await using child = await start(script('console.log(process.pid); console.log("two"); process.exitCode = 5'));
    const seen: string[] = [];
    for await (const line of lines(child.stdout!)) seen.push(line);
    assert.deepEqual(seen, [String(child.pid), 'two']);
    assert.deepEqual(await child.exited, { code: 5, signal: undefined });
    assert.equal(child.kill(), false);
  });

  it('has an end of its lines whenever somebody begins to read, and when it is ended meanwhile', {
    timeout: 20_000,
  }, async () => {
    const ended = await start(script('console.log("nobody heard")'));
    await ended.exited;
    assert.deepEqual(await linesOf(ended.stdout!), []);
    const disposed = await start(['sleep', '1000']);
    await disposed[Symbol.asyncDispose]();
    assert.deepEqual(await linesOf(disposed.stdout!), []);
    // Its output stays open: another program has it.
    const child = await start(['sh', '-c', 'sleep 1000 & echo $!; wait']);
    const reading = lines(child.stdout!);
    const { value: orphan } = await reading.next();
    const next = reading.next();
    await child[Symbol.asyncDispose]();
    assert.equal((await next).done, true);
    process.kill(Number(orphan));
  });

  it('gives whole lines of bytes that come in pieces, without CR', async () => {
    const stream = Readable.from([
      Buffer.from('a\r'),
      Buffer.from('\nb\n\nc\xe2\x82', 'latin1'),
      Buffer.from('\xacd', 'latin1'),
    ]);
    assert.deepEqual(await linesOf(stream), ['a', 'b', '', 'c\u20acd']);
  });

  it('keeps the last words', async () => {
    await using child = await start(script('console.error("a".repeat(100_000)); console.error("last words")'), {
      stdout: 'ignore',
    });
    await child.exited;
    assert(child.tail().endsWith('a\nlast words\n'));
    assert.equal(child.tail().length, 8192);
  });

  it('is ended by dispose, even when it ignores SIGTERM and its output is not read', async () => {
    const child = await start(
      script('process.on("SIGTERM", () => {}); setInterval(() => console.log("x".repeat(10_000)), 1)'),
      { killGraceMs: 50 },
    );
    await once(child.stdout!, 'readable');
    await child[Symbol.asyncDispose]();
    assert.equal(isAlive(child.pid), false);
    assert.equal((await child.exited).signal, 'SIGKILL');
  });

  it('is not waited for when what it has started holds its output open', { timeout: 20_000 }, async () => {
    const child = await start(['sh', '-c', 'sleep 1000 & echo $!; wait']);
    let orphan = 0;
    for await (const line of lines(child.stdout!)) {
      orphan = Number(line);
      break;
    }
    await child[Symbol.asyncDispose]();
    assert.equal(isAlive(child.pid), false);
    assert(isAlive(orphan));
    process.kill(orphan);
  });

  it('is ended by its signal', async () => {
    const controller = new AbortController();
    await using child = await start(['sleep', '1000'], { signal: controller.signal });
    controller.abort();
    assert.equal((await child.exited).signal, 'SIGTERM');
  });

  it('is ended when its parent exits by itself', { timeout: 20_000 }, async () => {
    const module = new URL('./run.ts', import.meta.url).href;
    // The grandchild holds our pipe, so run() comes back only when it is gone as well.
    const { stdout } = await run([
      node,
      '--input-type=module',
      '-e',
      `import { start } from ${JSON.stringify(module)};
       const child = await start(['sleep', '1000'], { stdout: 'inherit' });
       process.stdout.write('started', () => process.exit(0));`,
    ]);
    assert.equal(stdout, 'started');
  });

  it('ends with its parent, killed or not, when that is wanted, also without anything to write', {
    timeout: 20_000,
  }, async () => {
    const module = new URL('./run.ts', import.meta.url).href;
    const parent = await start(
      script(
        `import('${module}').then(async ({ start }) => {
          const child = await start(['sleep', '600'], { endsWithThisProcess: true });
          console.log(child.pid);
          setInterval(() => {}, 1e6);
        })`,
      ),
    );
    let pid = 0;
    for await (const line of lines(parent.stdout!)) {
      pid = Number(line);
      break;
    }
    assert.ok(isAlive(pid));
    parent.kill('SIGKILL');
    await parent.exited;
    await eventually('it is gone', () => !isAlive(pid));
  });

  it('starts it as well where setpriv is that of BusyBox, which cannot end it with its parent', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weft-run-'));
    try {
      const usage = 'echo "Usage: setpriv [OPTIONS] PROG [ARGS]" >&2\nexit 1\n';
      await writeFile(join(folder, 'setpriv'), `#!/bin/sh\n${usage}`, { mode: 0o755 });
      const { stdout } = await run(
        script(
          `import('${new URL('./run.ts', import.meta.url).href}').then(async ({ start }) => {
            const child = await start(['true'], { endsWithThisProcess: true });
            console.log((await child.exited).code);
          })`,
        ),
        { env: { PATH: `${folder}:${process.env.PATH}` } },
      );
      assert.equal(stdout, '0\n');
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('rejects when there is no such program', async () => {
    await assert.rejects(start(['weft-no-such-program']), { code: 'WEFT_COMMAND_MISSING' });
  });

  it('tells a program that is nowhere from one that may not be run, beside a directory it may not enter', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weft-run-'));
    try {
      const [closed, open] = [join(folder, 'closed'), join(folder, 'open')];
      await chmod(folder, 0o755);
      await mkdir(closed);
      await chmod(closed, 0);
      await mkdir(open);
      await writeFile(join(open, 'weft-plain-file'), '', { mode: 0o644 });
      const module = new URL('./run.ts', import.meta.url).href;
      const { stdout } = await run([
        node,
        '--input-type=module',
        '-e',
        `import { run } from ${JSON.stringify(module)};
         // Root may enter any directory.
         if (process.geteuid() === 0) process.setuid(65534);
         const env = { PATH: ${JSON.stringify(`${closed}:${open}`)} };
         for (const program of ['weft-no-such-program', 'weft-plain-file']) {
           await run([program], { env }).catch(({ code }) => console.log(program, code));
         }`,
      ]);
      assert.equal(stdout, 'weft-no-such-program WEFT_COMMAND_MISSING\nweft-plain-file WEFT_COMMAND_FAILED\n');
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
