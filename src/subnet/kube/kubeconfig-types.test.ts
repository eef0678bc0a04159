import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type KubeconfigContext, readKubeconfig } from './kubeconfig.ts';

describe('a kubeconfig', () => {
  let file: string;
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'weft-kubeconfig-'));
    file = join(folder, 'config');
  });
  after(() => rmSync(folder, { recursive: true }));

  /** A whole file with these lines for the user and in place of current-context. */
  async function read(user: string, current = 'current-context: c'): Promise<KubeconfigContext> {
    const lines = ['clusters:', '- name: k', '  cluster: {server: "https://k:6443"}', 'contexts:', '- name: c'];
    lines.push(
      '  context: {cluster: k, user: u}',
      'users:',
      '- name: u',
      '  user:',
      ...user.split('\n').map((line) => `    ${line}`),
    );
    writeFileSync(file, `${lines.join('\n')}\n${current}\n`);
    return readKubeconfig(file);
  }
  const refused = (user: string, message: RegExp, current?: string) =>
    assert.rejects(read(user, current), { code: 'WEFT_KUBE_CONFIG', message });

  it('has text where kubectl wants text: what YAML takes for a number or a boolean is refused, with its place', async () => {
    const quotes = 'must be a string, but is a number to YAML: put it in quotes';
    await refused('password: 0123', new RegExp(`users\\[0\\]\\.user\\.password ${quotes}`));
    await refused('{username: 7, password: x}', new RegExp(`user\\.username ${quotes}`));
    await refused('token: 1e3', new RegExp(`user\\.token ${quotes}`));
    await refused('password: yes', /user\.password must be a string, but is a boolean to YAML: put it in quotes/);
    await refused('token: a', new RegExp(`current-context ${quotes}`), 'current-context: 0123');
    await refused('token: [a]', /user\.token must be a string, but is a list/);
    assert.equal((await read('{username: u, password: "0123"}')).password, '0123');
    assert.equal((await read("password: 'yes'\nusername: u")).password, 'yes');
    assert.equal((await read('{username: u, password: 2001-01-01}')).password, '2001-01-01', 'a date is text');
    assert.equal((await read('token: null\nusername: u')).token, undefined);
  });

  it('has a token that a header can hold', async () => {
    await refused('token: |\n  secret', /users\[0\]\.user\.token ends with a line break, .*"token: \|-"/);
    await refused(
      'token: "a\u00a0b"',
      /user\.token has a character that no HTTP header can have: U\+00A0, as number 2/,
    );
    assert.equal((await read('token: |-\n  secret')).token, 'secret');
  });

  it('names what cannot be seen where it is not YAML', async () => {
    await refused('token:\u00a0abc', /\(line 10, column 11 has U\+00A0 \(no-break space\)\)/);
  });
});
