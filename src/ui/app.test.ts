import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeInspection } from '../../test/fakes/fake-inspection.ts';
import type { LabResult } from '../lab/lab-result.ts';
import type { AgentSource } from './agent-source.ts';
import { hostNameOf, uiApp } from './app.ts';
import { Fleet } from './fleet.ts';
import { PageAccess } from './page-access.ts';

const FILES = new Map([
  ['index.html', '<!doctype html>'],
  ['page.js', 'js'],
  ['page.css', 'css'],
]);

const agent = new FakeInspection();
const ANSWERS: Readonly<Record<string, unknown>> = { '/self': agent.self(), '/peers': agent.peers() };
const asked: string[] = [];
const source: AgentSource = {
  name: 'h 1',
  ask: async (path) => {
    asked.push(path);
    if (path === '/fails') throw new Error('connection refused');
    const body = Buffer.from(JSON.stringify(ANSWERS[path] ?? { a: '<b>' }));
    return { status: path === '/none' ? 404 : 200, contentType: 'text/html', body };
  },
};
const lab = { id: 'abc' } as LabResult;
const access = new PageAccess();
const ORIGIN = 'http://127.0.0.1:8087';
const app = uiApp({
  // Time stands still: what it has been told stays new.
  fleet: new Fleet([source], { now: () => 0 }),
  files: { read: (name) => (FILES.has(name) ? Buffer.from(FILES.get(name)!) : undefined) },
  hostNames: ['127.0.0.1', 'localhost'],
  access,
  lab: () => lab,
});
const request = async (path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Response> =>
  app.request(`${ORIGIN}${path}`, { method, headers: { host: '127.0.0.1:8087', ...headers } });
const tokenOf = (address: string): string => new URLSearchParams(new URL(address).hash.slice(1)).get('token')!;
const token = tokenOf(access.address(ORIGIN));
const authorization = `Bearer ${token}`;
const get = async (path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Response> =>
  request(path, { authorization, ...headers }, method);

describe('the web server of the page', () => {
  it('has an address for each screen and the files, and nothing else', async () => {
    for (const path of ['/', '/map', '/matrix', '/walk', '/timeline', '/host', '/host/node-1']) {
      const response = await get(path);
      assert.deepEqual([response.status, await response.text()], [200, '<!doctype html>'], path);
    }
    assert.equal((await get('/page.js')).headers.get('content-type'), 'text/javascript; charset=utf-8');
    for (const path of ['/other.js', '/..%2f..%2fetc%2fpasswd', '/map/x', '/.git/config', '/..%2fpage.js']) {
      assert.equal((await get(path)).status, 404, path);
    }
  });

  it('allows no script, style or address that is not its own, on every answer', async () => {
    for (const path of ['/', '/overview', '/page.js', '/none', '/hosts/h%201/api/v1/fails']) {
      const { headers } = await get(path);
      const policy = headers.get('content-security-policy') ?? '';
      assert.match(policy, /default-src 'none'.*script-src 'self';.*style-src 'self';.*connect-src 'self'/, path);
      assert.doesNotMatch(policy, /unsafe|\*|https?:/);
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
      assert.equal(headers.get('access-control-allow-origin'), null);
    }
  });

  it('refuses another name in Host, which is how a DNS name of an attacker would come in', async () => {
    for (const host of ['evil.example', 'evil.example:8087', '127.0.0.1.evil.example', '192.168.1.1', '']) {
      const response = await get('/overview', { host });
      assert.equal(response.status, 421, host);
    }
    for (const host of ['127.0.0.1:8087', 'localhost:8087', 'LOCALHOST:8087'])
      assert.equal((await get('/', { host })).status, 200);
    assert.deepEqual(['A.b:80', '[::1]:80', 'x'].map(hostNameOf), ['a.b', '[::1]', 'x']);
  });

  it('only reads', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
      assert.equal((await get('/hosts/h%201/api/v1/self', {}, method)).status, 405, method);
    }
  });

  it('hands questions on to the agent of that name, and its answer back as JSON', async () => {
    asked.length = 0;
    const response = await get('/hosts/h%201/api/v1/events?after=3');
    assert.deepEqual(asked, ['/events?after=3']);
    assert.equal(response.headers.get('content-type'), 'application/json');
    assert.equal(await response.text(), '{"a":"<b>"}');
    assert.equal((await get('/hosts/h%201/api/v1/none')).status, 404);
    assert.equal((await get('/hosts/nobody/api/v1/self')).status, 404);
    const failed = await get('/hosts/h%201/api/v1/fails');
    assert.equal(failed.status, 502);
    assert.match(await failed.text(), /connection refused/);
    assert.equal((await get('/hosts/h%201/api/v1/stream')).status, 404);
  });

  it('asks no agent again what it has just said', async () => {
    const self = async (path: string) => {
      asked.length = 0;
      const response = await get(`/hosts/h%201/api/v1${path}`);
      assert.equal(response.status, 200);
      assert.deepEqual(await response.json(), JSON.parse(JSON.stringify(ANSWERS[path] ?? { a: '<b>' })));
      return [...asked];
    };
    await get('/overview');
    assert.deepEqual(await self('/peers'), []);
    assert.deepEqual(await self('/self'), ['/self']);
    assert.deepEqual(await self('/peers?limit=1'), ['/peers?limit=1']);
    assert.deepEqual(await self('/state'), ['/state']);
  });

  it('has what happened on all hosts since what the page has seen', async () => {
    asked.length = 0;
    await get('/events?after=0');
    assert.deepEqual(
      asked.filter((path) => path.startsWith('/events')),
      ['/events?after=0&limit=10000'],
    );
    assert.deepEqual(await (await get('/events?after=x')).json(), { newest: 0, hosts: [] });
  });

  it('knows the hosts, and a lab where there is one', async () => {
    assert.deepEqual(await (await get('/hosts')).json(), [{ name: 'h 1' }]);
    assert.deepEqual(await (await get('/lab')).json(), { id: 'abc' });
    const bare = uiApp({ fleet: new Fleet([]), files: { read: () => undefined }, hostNames: ['x'], access });
    assert.equal(await (await bare.request('http://x/lab', { headers: { host: 'x', authorization } })).json(), null);
  });
});

describe('who may read the page', () => {
  const REFUSED = /^This page needs a token\. Open the address that weft ui printed/;

  it('nobody without its token, whatever he asks for; the page itself says nothing of any host', async () => {
    asked.length = 0;
    const wrong = [
      {},
      { authorization: '' },
      { authorization: 'Bearer ' },
      { authorization: token },
      { authorization: `Basic ${token}` },
      { authorization: `Bearer ${token.slice(1)}` },
      { authorization: `Bearer ${token}x` },
      { cookie: `weft-ui-8087=${token}; token=${token}` },
    ];
    for (const path of ['/hosts', '/overview', '/lab', '/hosts/h%201/api/v1/self', '/none', `/hosts?token=${token}`]) {
      for (const headers of wrong) {
        const response = await request(path, headers);
        assert.equal(response.status, 401, path);
        assert.match(await response.text(), REFUSED);
        assert.match(response.headers.get('content-type') ?? '', /^text\/plain/);
      }
    }
    assert.deepEqual(asked, []);
    for (const [path, text] of [
      ['/', '<!doctype html>'],
      ['/host/node-1', '<!doctype html>'],
      ['/page.js', 'js'],
    ] as const)
      assert.equal(await (await request(path)).text(), text);
  });

  it('whoever has its address, whose token no browser sends to a server by itself', async () => {
    const address = access.address(ORIGIN);
    assert.match(address, /^http:\/\/127\.0\.0\.1:8087\/#token=[\w-]{43}$/);
    for (const path of ['/', '/page.js', '/hosts', '/lab', '/hosts/h%201/api/v1/events']) {
      const response = await get(path);
      assert.equal(response.status, 200, path);
      // A cookie goes to every port of its host, and another user of this machine may have the next one.
      assert.deepEqual(response.headers.getSetCookie(), [], path);
      assert.ok(!(await response.text()).includes(token), path);
    }
  });

  it('not with the token of the page beside it, or of an earlier one', async () => {
    const other = tokenOf(new PageAccess().address(ORIGIN));
    assert.notEqual(other, token);
    assert.equal((await request('/overview', { authorization: `Bearer ${other}` })).status, 401);
  });
});
