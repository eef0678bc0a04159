import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundlePlugin } from '../scripts/packaging/bundle.ts';
import { run } from '../src/linux/run.ts';
import { NODE_VARIABLES } from '../src/node-variables.ts';

const bin = (name: string): string => fileURLToPath(new URL(`../bin/${name}`, import.meta.url));

/** Each of them keeps a Node.js that heeds it from starting, or from printing what it should. */
const HOSTILE = {
  NODE_OPTIONS: '--require=/nonexistent/agent.js --no-such-option',
  NODE_ICU_DATA: '/nonexistent',
  NODE_EXTRA_CA_CERTS: '/nonexistent/ca.pem',
  NODE_CHANNEL_FD: '97',
  NODE_REDIRECT_WARNINGS: '/nonexistent/warnings',
  NODE_DEBUG: 'module,fs',
};

describe('variables of Node.js in the environment', () => {
  let folder: string;
  let plugin: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'weft-node-'));
    plugin = join(folder, 'flannel.cjs');
    await bundlePlugin(plugin, AbortSignal.timeout(60_000));
  });
  after(() => rmSync(folder, { recursive: true }));

  /** As a runtime starts it: through a shell, since `run` itself hands none of them on. */
  async function hostile(program: string, env: Record<string, string>, ...args: string[]) {
    const words = Object.entries({ ...HOSTILE, ...env }).map(([name, value]) => `${name}=${value}`);
    return run(['env', ...words, program, ...args], { okExitCodes: 'any' });
  }

  it('do not reach the CNI plugin, as one file or from its sources', async () => {
    for (const program of [plugin, bin('flannel')]) {
      const { exitCode, stdout, stderr } = await hostile(program, { CNI_COMMAND: 'VERSION' });
      assert.deepEqual([exitCode, stderr], [0, ''], stderr);
      assert.equal((JSON.parse(stdout) as { cniVersion: string }).cniVersion, '1.1.0');
    }
  });

  it('do not reach the agent and weft', async () => {
    const agent = await hostile(bin('flanneld'), {}, '--version');
    assert.equal(agent.exitCode, 0, agent.stderr);
    assert.match(agent.stderr, /^\d+\.\d+\.\d+\n$/);
    const weft = await hostile(bin('weft'), {}, '--help');
    assert.deepEqual([weft.exitCode, weft.stderr], [0, '']);
  });

  it('are handed on to no program that the agent starts; the name of the Node is', async () => {
    const script = join(folder, 'child.mjs');
    const ours = fileURLToPath(new URL('../src/linux/run.ts', import.meta.url));
    writeFileSync(
      script,
      `import { run } from ${JSON.stringify(ours)};\nprocess.stdout.write((await run(['env'])).stdout);\n`,
    );
    const environment = join(folder, 'environment');
    writeFileSync(
      environment,
      `#!/bin/sh\nunset NODE_COMPILE_CACHE\nexport NODE_DEBUG=none NODE_EXTRA_CA_CERTS= NODE_NAME=n1 NODE_OPTIONS=--no-warnings\nexec '${process.execPath}' '${script}'\n`,
    );
    chmodSync(environment, 0o755);
    const { stdout } = await run([environment]);
    const names = stdout.split('\n').flatMap((line) => /^(NODE_\w+)=/.exec(line)?.[1] ?? []);
    // node:test gives its own to what it starts.
    assert.deepEqual(
      names.filter((name) => !name.startsWith('NODE_TEST_')),
      ['NODE_NAME'],
    );
  });

  it('are the same ones for the launchers', () => {
    const text = readFileSync(bin('runtime.sh'), 'utf8');
    const [, list = ''] = /^unset ((?:.*\\\n)*.*)$/m.exec(text) ?? [];
    assert.deepEqual(list.trim().split(/[\\\s]+/), [...NODE_VARIABLES]);
  });
});
