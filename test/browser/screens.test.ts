import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { Browser } from 'playwright-core';
import { eventuallyHolds } from '../netns/waiting.ts';
import { headersFor, noComplaints, openPage, seesText, servePage, startBrowser, until, violations } from './browser.ts';
import { nameOf, SimulatedFleet } from './simulated-fleet.ts';

const SCREENS = ['/map', '/matrix', '/walk', '/timeline', '/host'] as const;

describe('the page', () => {
  let browser: Browser;
  let simulated: SimulatedFleet;
  let served: Awaited<ReturnType<typeof servePage>>;
  before(async () => {
    browser = await startBrowser();
    simulated = new SimulatedFleet({ hosts: 5 });
    simulated.breakLink(1, 3, 'UDP port 8285 is filtered');
    simulated.narrowLink(2, 4);
    served = await servePage(simulated.sources);
  });
  after(async () => {
    await browser?.close();
    await served?.[Symbol.asyncDispose]();
  });

  for (const colorScheme of ['light', 'dark'] as const) {
    it(`has nothing for axe to find, on any screen, ${colorScheme}`, async () => {
      for (const path of [...SCREENS, `/map?host=${nameOf(1)}`, `/matrix?from=${nameOf(1)}&to=${nameOf(3)}`]) {
        await using reader = await openPage(browser, served.address, path, { colorScheme });
        await seesText(reader.page, '5 hosts, 2 problems');
        await reader.page.locator('main >> css=h1 + *').waitFor();
        if (path === '/timeline') await reader.page.locator('.what').first().click();
        if (path === '/host') await seesText(reader.page, 'Kernel, wanted and actual');
        assert.deepEqual(await violations(reader.page), [], path);
        noComplaints(reader);
      }
    });
  }

  it('has an address for each screen, which back and reload keep', async () => {
    await using reader = await openPage(browser, served.address, '/');
    const { page } = reader;
    const screens = page.getByRole('navigation', { name: 'Screens' });
    for (const title of ['Matrix', 'Walk', 'Timeline', 'Host', 'Map']) {
      await screens.getByRole('link', { name: title }).click();
      await page.waitForURL(`**/${title.toLowerCase()}`);
      await page.getByRole('heading', { level: 1, name: title, includeHidden: true }).waitFor({ state: 'attached' });
    }
    await page.goBack();
    await page.waitForURL('**/host');
    await page.reload();
    assert.equal(await screens.locator('[aria-current=page]').textContent(), 'Host');
    noComplaints(reader);
  });

  it('is for whoever opens its address, which then has no token any more', async () => {
    await using reader = await openPage(browser, served.address, `/host/${nameOf(1)}?tab=1`);
    const { page } = reader;
    await seesText(page, '5 hosts, 2 problems');
    const { search, hash } = new URL(page.url());
    assert.deepEqual([search, hash], ['?tab=1', '']);
    await page.reload();
    await seesText(page, '5 hosts, 2 problems');
    const tab = await page.context().newPage();
    await tab.goto(new URL('/matrix', page.url()).href);
    await seesText(tab, '5 hosts, 2 problems');
    const stranger = await browser.newContext();
    try {
      const other = await stranger.newPage();
      await other.goto(page.url());
      await seesText(other, /This page needs a token/);
      assert.ok(!(await other.textContent('body'))!.includes(nameOf(1)));
      // As when weft ui was started again: its new address, in the tab that is there already.
      await other.goto(new URL('/', page.url()).href);
      await seesText(other, /This page needs a token/);
      await other.evaluate(`location.href = ${JSON.stringify(served.address)}`);
      await seesText(other, '5 hosts, 2 problems');
      assert.equal(new URL(other.url()).hash, '');
    } finally {
      await stranger.close();
    }
    noComplaints(reader);
  });

  it('gives nothing to another server of this machine that its reader opens', async () => {
    const heard: IncomingHttpHeaders[] = [];
    const server = createServer((request, response) => {
      heard.push({ ...request.headers, url: request.url });
      response.end('<!doctype html><link rel=icon href=data:,>');
    });
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    try {
      await using reader = await openPage(browser, served.address, '/map');
      await seesText(reader.page, '5 hosts, 2 problems');
      await reader.page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
      assert.ok(heard.length > 0);
      const secret = headersFor(served.address).authorization.replace('Bearer ', '');
      assert.ok(!JSON.stringify(heard).includes(secret));
      for (const { cookie, authorization, referer } of heard)
        assert.deepEqual([cookie, authorization, referer], [undefined, undefined, undefined]);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });

  it('is led by the keyboard alone', async () => {
    await using reader = await openPage(browser, served.address, '/map');
    const { page } = reader;
    await seesText(page, nameOf(0));
    await page.keyboard.press('2');
    await page.waitForURL('**/matrix');
    await page.locator('[data-row="0"][data-column="1"]').focus();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowRight');
    // Over the diagonal.
    assert.equal(
      await page.evaluate('document.activeElement.dataset.row + " " + document.activeElement.dataset.column'),
      '2 3',
    );
    await page.keyboard.press('Enter');
    await page.waitForURL(`**/matrix?from=${nameOf(2)}&to=${nameOf(3)}`);
    await page.keyboard.press('p');
    await page.getByRole('button', { name: 'Paused' }).waitFor();
    await page.keyboard.press('p');
    await page.keyboard.press('/');
    await page.keyboard.type('node-003');
    await page.locator('tbody tr').first().waitFor();
    await until(page, "document.querySelectorAll('tbody tr').length === 1");
    await page.keyboard.press('Escape');
    await until(page, "document.querySelectorAll('tbody tr').length === 5");
    noComplaints(reader);
  });

  it('stands still while it is paused, and goes on after', async () => {
    await using reader = await openPage(browser, served.address, '/matrix');
    const { page } = reader;
    await seesText(page, '5 hosts, 2 problems');
    let looks = 0;
    page.on('request', (request) => {
      if (new URL(request.url()).pathname === '/overview') looks++;
    });
    await page.waitForRequest('**/overview*');
    await page.getByRole('button', { name: 'Pause' }).click();
    await seesText(page, 'as of');
    const before = looks;
    await page.waitForTimeout(2_500);
    assert.ok(looks <= before + 1, `${looks - before} looks while paused`);
    await page.getByRole('button', { name: 'Paused' }).click();
    await page.waitForRequest('**/overview*');
  });

  it('has something to show on every screen that is opened while it is paused', async () => {
    await using reader = await openPage(browser, served.address, '/matrix');
    const { page } = reader;
    await seesText(page, '5 hosts, 2 problems');
    await page.keyboard.press('p');
    await seesText(page, 'as of');
    await page.keyboard.press('4');
    await page.locator('.what').first().click();
    await page.getByRole('heading', { name: 'In the kernel now' }).waitFor();
    await seesText(page, /No link, address, route or neighbour of/);
    await page.keyboard.press('5');
    await seesText(page, 'Kernel, wanted and actual');
    await page.getByRole('button', { name: 'Paused' }).waitFor();
    noComplaints(reader);
  });

  it('keeps the place of who uses the keyboard or a screen reader', async () => {
    await using reader = await openPage(browser, served.address, '/map');
    const { page } = reader;
    const focused = (): Promise<string> => page.evaluate('document.activeElement.textContent') as Promise<string>;
    const row = page.locator('.rows').getByRole('button', { name: new RegExp(`^${nameOf(2)} `) });
    await row.focus();
    await page.keyboard.press('Enter');
    await page.waitForURL(`**/map?host=${nameOf(2)}`);
    await until(page, "document.activeElement.matches('h2')");
    assert.equal(await focused(), nameOf(2));
    await page.getByRole('button', { name: 'all hosts' }).focus();
    await page.keyboard.press('Enter');
    await until(page, "document.activeElement.matches('.rows button')");
    assert.ok((await focused()).startsWith(nameOf(2)));
    await page.keyboard.press('3');
    await until(page, "document.activeElement.matches('main[aria-label=Walk]')");
    noComplaints(reader);
  });

  it('fits in half a window and in a narrow one, with the names that machines of a cloud have', async () => {
    const own = new SimulatedFleet({ hosts: 5 });
    own.breakLink(0, 1, 'UDP port 8285 is filtered');
    const sources = own.sources.map((source, index) => ({
      ...source,
      name: `gke-production-default-pool-4f2a91bc-${index}.c.some-project.internal`,
    }));
    await using cloud = await servePage(sources);
    for (const path of SCREENS) {
      await using reader = await openPage(browser, cloud.address, path);
      const { page } = reader;
      await seesText(page, '5 hosts, 1 problem');
      await page.locator('main >> css=h1 + *').waitFor();
      for (const width of [1280, 640, 400]) {
        await page.setViewportSize({ width, height: 760 });
        const beyond = await page.evaluate(`[...document.querySelectorAll('.bar *, .toolbar *, .side, .cards > *')]
          .filter((each) => !each.closest('.sr') && each.getBoundingClientRect().right > innerWidth + 0.5)
          .map((each) => each.tagName + ' ' + each.className + ' ' + each.textContent)`);
        assert.deepEqual(beyond, [], `${path}, ${width} pixels`);
        assert.equal(await page.evaluate('document.documentElement.scrollWidth'), width, path);
      }
      if (path === '/matrix') {
        const widest = "Math.max(...[...document.querySelectorAll('.grid th')].map((each) => each.offsetWidth))";
        assert.ok(Number(await page.evaluate(widest)) < 220, 'a column is no wider than it needs to be');
      }
      noComplaints(reader);
    }
  });

  it('shows one red cell where probes get no answer, with the reason', async () => {
    await using reader = await openPage(browser, served.address, '/matrix');
    const { page } = reader;
    await page.locator('.cell-bad').first().waitFor();
    assert.equal(await page.locator('td.cell-bad').count(), 1);
    assert.equal(await page.locator('td.cell-warn').count(), 1);
    await page.getByRole('button', { name: `${nameOf(1)} to ${nameOf(3)}: lost, UDP port 8285 is filtered` }).click();
    await page.waitForURL(`**/matrix?from=${nameOf(1)}&to=${nameOf(3)}`);
    for (const title of ['Loss', 'Path MTU', 'Round trip']) {
      await page.getByText(title, { exact: true }).first().click();
      assert.equal(await page.locator('td.cell-bad').count(), 1, title);
    }
  });

  it('shows a fault when an agent tells of it, whenever it looks next', async () => {
    const own = new SimulatedFleet({ hosts: 3 });
    const never = 3_600_000;
    await using page3 = await servePage(own.sources, undefined, { freshMs: never, lookMs: never });
    await using reader = await openPage(browser, page3.address, '/matrix');
    const { page } = reader;
    await seesText(page, '3 hosts, no problem');
    own.breakLink(0, 1, 'UDP port 8285 is filtered');
    // Again and again: when the page's next look begins to wait for it is not told.
    const telling = setInterval(() => own.tell(0, 'path-fault'), 100);
    try {
      await page.locator('td.cell-bad').first().waitFor();
      await seesText(page, '3 hosts, 1 problem');
    } finally {
      clearInterval(telling);
    }
    noComplaints(reader);
  });

  it('shows a walk step by step, and gives its picture away', async () => {
    await using reader = await openPage(browser, served.address, '/walk?path=forwarder', {
      reducedMotion: 'reduce',
      acceptDownloads: true,
    });
    const { page } = reader;
    await seesText(page, 'Hop 1 of 17');
    assert.equal(await page.locator('.hop [aria-live]').getAttribute('aria-live'), 'polite');
    const places: string[] = [];
    for (let hop = 1; hop <= 17; hop++) {
      await seesText(page, `Hop ${hop} of 17`);
      places.push(((await page.locator('.hop .title').textContent()) ?? '').replace(/ (user|kernel|physical).*/, ''));
      if (hop < 17) await page.keyboard.press('ArrowRight');
    }
    assert.deepEqual(places.slice(3, 9), ['cni0', 'flannel0', 'flanneld', 'UDP socket', 'eth0', 'wire']);
    await page.getByRole('button', { name: /vxlan/ }).click();
    await seesText(page, 'Hop 1 of 13');
    for (const [button, start] of [
      ['SVG', '<svg'],
      ['PNG', '\x89PNG'],
    ] as const) {
      const [download] = await Promise.all([
        page.waitForEvent('download'),
        page.getByRole('button', { name: button, exact: true }).click(),
      ]);
      assert.match(download.suggestedFilename(), /^weft-walk-node-001-node-002-vxlan\.(svg|png)$/);
      const bytes = readFileSync(await download.path());
      assert.equal(bytes.toString('latin1', 0, start.length), start);
      assert.ok(bytes.length > 3_000);
      if (button === 'SVG') assert.doesNotMatch(bytes.toString(), /var\(|light-dark/);
    }
    noComplaints(reader);
  });

  it('finds events by the filter, and tells why they happened', async () => {
    await using reader = await openPage(browser, served.address, '/timeline');
    const { page } = reader;
    await until(page, "document.querySelectorAll('.what').length === 10");
    await page.getByRole('searchbox', { name: 'Filter' }).fill('node-002 has');
    await until(page, "document.querySelectorAll('.what').length === 1");
    await page.locator('.what').click();
    await page.getByRole('heading', { name: 'this host has 10.64.1.0/24' }).waitFor();
    await seesText(page, 'lease-acquired');
    await page.reload();
    await page.getByRole('heading', { name: 'this host has 10.64.1.0/24' }).waitFor();
  });

  it('has what weft doctor finds on a host, with the remedy to copy', async () => {
    const own = new SimulatedFleet({ hosts: 3 });
    const remedy = 'Run sysctl -w net.ipv4.ip_forward=1.';
    const check = { looksAt: 'the host' };
    own.examined(1, [
      { ...check, name: 'tun-device', status: 'ok', found: 'yes' },
      { ...check, name: 'ip-forward', status: 'warn', found: 'disabled: pods cannot reach anything', remedy },
    ]);
    await using page3 = await servePage(own.sources);
    const permissions = ['clipboard-read', 'clipboard-write'];
    await using reader = await openPage(browser, page3.address, `/host/${nameOf(1)}`, { permissions });
    const { page } = reader;
    const finding = page.locator('.problem', { hasText: 'ip-forward' });
    await finding.getByRole('button', { name: 'Copy' }).click();
    await finding.getByRole('button', { name: 'Copied' }).waitFor();
    assert.equal(await page.evaluate('navigator.clipboard.readText()'), remedy);
    await seesText(page, /^2 checks of weft doctor, /);
    assert.equal(await page.locator('.problem').count(), 1);
    assert.deepEqual(await violations(page), []);
    await page.getByRole('combobox').selectOption(nameOf(0));
    await seesText(page, 'Nothing is wrong.');
    await seesText(page, /^1 check of weft doctor, /);
    noComplaints(reader);
  });

  it('shows a host that goes away, and one that comes back', async () => {
    const own = new SimulatedFleet({ hosts: 3 });
    await using page3 = await servePage(own.sources);
    await using reader = await openPage(browser, page3.address, '/map');
    await seesText(reader.page, '3 hosts, no problem');
    own.takeAway(2);
    await seesText(reader.page, `${nameOf(2)} does not answer`);
    own.bringBack(2);
    await seesText(reader.page, '3 hosts, no problem');
    noComplaints(reader);
  });

  it('takes names and texts of others as text, never as HTML', async () => {
    const evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
    const own = new SimulatedFleet({ hosts: 3 });
    own.breakLink(0, 1, evil);
    const sources = own.sources.map((source, index) => (index === 0 ? { ...source, name: evil } : source));
    await using page3 = await servePage(sources);
    for (const path of ['/map', '/matrix', '/walk', '/timeline', `/host/${encodeURIComponent(evil)}`]) {
      await using reader = await openPage(browser, page3.address, path);
      await seesText(reader.page, /3 hosts, 1 problem/);
      await until(reader.page, `document.body.textContent.includes('<img src=x')`);
      assert.equal(await reader.page.locator('img, main script').count(), 0, path);
      assert.match(await reader.page.title(), /weft$/);
      noComplaints(reader);
    }
  });
});

describe('500 hosts', () => {
  it('are asked for events by one question of the page, and each once', async () => {
    await using browser = await startBrowser();
    const simulated = new SimulatedFleet({ hosts: 500, talkative: 4 });
    await using served = await servePage(simulated.sources);
    await using reader = await openPage(browser, served.address, '/timeline');
    const { page } = reader;
    await until(page, "/^1000 events$/m.test(document.querySelector('.toolbar .dim')?.textContent)");
    assert.equal(simulated.asked.get('/events'), 500, 'each once');
    const asked: string[] = [];
    page.on('request', (request) => asked.push(new URL(request.url()).pathname));
    const looks = (): number => asked.filter((path) => path === '/events').length;
    await eventuallyHolds(async () => assert.ok(looks() >= 3));
    simulated.happen(7, 'this is new');
    await page.locator('.what', { hasText: 'this is new' }).waitFor();
    assert.equal(simulated.asked.get('/events'), 500, 'who is followed tells it');
    assert.deepEqual([...new Set(asked)].sort(), ['/events', '/overview']);
    noComplaints(reader);
  });

  it('are drawn, found and measured; the time of a frame is in the report', async (t) => {
    await using browser = await startBrowser();
    const simulated = new SimulatedFleet({ hosts: 500, asked: 60, talkative: 24 });
    simulated.breakLink(17, 18, 'UDP port 8285 is filtered');
    await using served = await servePage(simulated.sources);
    await using reader = await openPage(browser, served.address, '/map');
    const { page } = reader;
    await seesText(page, /500 hosts, 1 problem/);
    // Dots need two looks.
    await until(page, '/one dot: [\\d.k ]+packets/.test(document.body.textContent)');
    const frames = (await page.evaluate(`new Promise((done) => {
      const times = [];
      let before;
      requestAnimationFrame(function frame(now) {
        if (before !== undefined) times.push(now - before);
        before = now;
        if (times.length < 180) requestAnimationFrame(frame);
        else done(times.sort((a, b) => a - b));
      });
    })`)) as number[];
    const at = (share: number): string => `${frames[Math.floor(share * (frames.length - 1))]!.toFixed(1)} ms`;
    t.diagnostic(`500 hosts, a frame: median ${at(0.5)}, 95 % within ${at(0.95)}, longest ${at(1)}`);
    await page.getByRole('searchbox', { name: 'Filter' }).fill('node-321');
    await seesText(page, '1 of 500 hosts');
    await page.goto(new URL('/matrix', page.url()).href);
    await seesText(page, `${nameOf(17)} → ${nameOf(18)}`);
    await page.getByRole('img', { name: /Matrix of 500 hosts/ }).waitFor();
    assert.deepEqual(await violations(page), []);
    noComplaints(reader);
  });
});
