import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { clientsOf, hostsOf } from './agent-target.ts';

describe('--host and --token-file', () => {
  const directory = mkdtempSync(join(tmpdir(), 'weft-target-'));
  const tokenFile = join(directory, 'token');
  writeFileSync(tokenFile, 'secret\n');
  after(() => rmSync(directory, { recursive: true }));

  it('are a name, an address and a token each, each once', async () => {
    const found = await hostsOf(
      ['b=http://192.0.2.2:8287', 'https://[2001:db8::1]/', 'b=http://192.0.2.2:8287'],
      tokenFile,
    );
    assert.deepEqual(
      found.map(({ name, url, token }) => [name, url.href, token]),
      [
        ['b', 'http://192.0.2.2:8287/', 'secret'],
        ['[2001:db8::1]', 'https://[2001:db8::1]/', 'secret'],
      ],
    );
    assert.deepEqual(await hostsOf([], undefined), []);
    const flags = { host: ['a=http://192.0.2.1', 'http://192.0.2.2'], tokenFile };
    const clients = await clientsOf(flags, new AbortController().signal);
    assert.deepEqual(
      clients.map(({ name }) => name),
      ['a', '192.0.2.2'],
    );
  });

  it('are refused with what is wrong', async () => {
    for (const [hosts, file, message] of [
      [['192.0.2.1:8287'], tokenFile, /is no URL/],
      [['a=ftp://192.0.2.1'], tokenFile, /is no URL/],
      [['a=http://192.0.2.1', 'a=http://192.0.2.2'], tokenFile, /the same name/],
      [['http://192.0.2.1'], undefined, /needs --token-file/],
      [['http://192.0.2.1'], join(directory, 'none'), /cannot read --token-file: ENOENT/],
    ] as const) {
      await assert.rejects(hostsOf(hosts, file), { code: 'WEFT_USAGE', message });
    }
    const flags = { host: 'http://192.0.2.1', tokenFile, cluster: true } as const;
    await assert.rejects(clientsOf(flags, new AbortController().signal), { code: 'WEFT_USAGE', message: /contradict/ });
  });
});
