import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import type { PeerPath } from '../../src/api/peer-path.ts';
import type { Answer } from '../../src/api/schema.ts';
import { eventually, eventuallyHolds } from '../netns/waiting.ts';
import {
  headersFor,
  hostRows,
  noComplaints,
  openPage,
  seesText,
  servePage,
  startBrowser,
  until,
  violations,
} from './browser.ts';
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

  /** All that a screen shows: what is written, and what is drawn. */
  const SHOWN = `[document.querySelector('main').outerHTML, ...Array.from(document.querySelectorAll('main canvas'), (each) => each.toDataURL())].join()`;

  for (const path of SCREENS) {
    it(`stands still on ${path} while it is paused, and goes on after`, async () => {
      await using reader = await openPage(browser, served.address, path);
      const { page } = reader;
      await seesText(page, '5 hosts, 2 problems');
      const asked: string[] = [];
      page.on('request', (request) => asked.push(new URL(request.url()).pathname));
      const own = path === '/timeline' ? ['/events'] : path === '/host' ? ['self', 'peers', 'readiness'] : [];
      const asksForAll = (): Promise<void> =>
        eventuallyHolds(async () => {
          for (const question of ['/overview', ...own])
            assert.ok(
              asked.some((one) => one.endsWith(question)),
              question,
            );
        });
      await asksForAll();
      // A packet that has arrived stands still anyway.
      if (path === '/walk') await page.getByRole('button', { name: 'Replay' }).click();
      await page.getByRole('button', { name: 'Pause' }).click();
      await seesText(page, 'as of');
      // What was asked before is answered, and drawn.
      await page.waitForTimeout(500);
      asked.length = 0;
      const shown = await page.evaluate(SHOWN);
      await page.waitForTimeout(2_500);
      assert.deepEqual(asked, []);
      assert.ok((await page.evaluate(SHOWN)) === shown, 'nothing on the screen changes');
      await page.getByRole('button', { name: 'Paused' }).click();
      await asksForAll();
      // Elsewhere the figures of simulated hosts stay the same.
      if (path === '/map' || path === '/walk')
        await eventuallyHolds(async () => assert.ok((await page.evaluate(SHOWN)) !== shown, 'it goes on'));
      noComplaints(reader);
    });
  }

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

  it('shows a red cell where IPv6 alone is broken, and beside it what is measured in each family', async () => {
    const own = new SimulatedFleet({ hosts: 3 });
    own.breakIpv6(0, 1, 'nothing comes back');
    await using dual = await servePage(own.sources);
    await using reader = await openPage(browser, dual.address, '/matrix');
    const { page } = reader;
    await page.locator('td.cell-bad').first().waitFor();
    assert.equal(await page.locator('td.cell-bad').count(), 1);
    await page.getByRole('button', { name: `${nameOf(0)} to ${nameOf(1)}: lost, IPv6: nothing comes back` }).click();
    const facts = page.locator('.direction').first().locator('dl');
    await facts.waitFor();
    assert.match(
      (await facts.innerText()).replaceAll(/\s+/g, ' '),
      / IPv4 [\d.]+ .s, 0 % lost, 1472 bytes IPv6 no answer, 100 % lost/,
    );
    noComplaints(reader);
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

  /** Of the hop where the packet is. */
  const PLACE = "document.querySelector('.hop .title').firstChild.textContent.trim()";
  const hopOf = async (page: Page): Promise<number> =>
    Number(/^Hop (\d+) of/.exec((await page.locator('.hop .heading').textContent())!)?.[1]);

  it('shows every way step by step', async () => {
    const ways: Readonly<Record<string, readonly string[]>> = {
      'udp, user space': ['flannel0', 'flanneld', 'UDP socket', 'eth0', 'wire'],
      'udp, fast path': ['flannel0', 'eth0', 'wire'],
      vxlan: ['flannel.1', 'eth0', 'wire'],
      'host-gw': ['eth0', 'wire'],
      ipip: ['flannel.ipip', 'eth0', 'wire'],
      wireguard: ['flannel-wg', 'eth0', 'wire'],
      ipsec: ['IPsec', 'eth0', 'wire'],
    };
    const container = ['application', 'socket', 'veth', 'cni0'];
    await using reader = await openPage(browser, served.address, '/walk', { reducedMotion: 'reduce' });
    const { page } = reader;
    for (const [way, overlay] of [...Object.entries(ways), ['native socket', undefined] as const]) {
      const out = overlay === undefined ? ['application', 'socket', 'eth0', 'wire'] : [...container, ...overlay];
      const wanted = [...out, ...out.slice(0, -1).reverse()];
      const button = page.locator('.way').filter({ hasText: way });
      await button.click();
      await page.locator('.way[aria-pressed=true]').filter({ hasText: way }).waitFor();
      const places: unknown[] = [];
      for (let hop = 1; hop <= wanted.length; hop++) {
        await seesText(page, `Hop ${hop} of ${wanted.length}`);
        places.push(await page.evaluate(PLACE));
        if (hop < wanted.length) await page.keyboard.press('ArrowRight');
      }
      assert.deepEqual(places, wanted, way);
      // The data arrives as it was sent.
      await seesText(page, '18 bytes');
    }
    await page.keyboard.press('ArrowLeft');
    await seesText(page, 'Hop 6 of 7');
    assert.equal(await page.locator('.hop [aria-live]').getAttribute('aria-live'), 'polite');
    assert.deepEqual(await violations(page), []);
    noComplaints(reader);
  });

  it('lets a packet go, stops it, and replays it, by button and by key', async () => {
    await using reader = await openPage(browser, served.address, '/walk?path=forwarder');
    const { page } = reader;
    const [go, stop] = ['Go', 'Stop'].map((name) => page.getByRole('button', { name, exact: true }));
    const reaches = (hop: number): Promise<void> =>
      eventuallyHolds(async () => assert.ok((await hopOf(page)) >= hop, `hop ${hop}`));
    /** Between two hops too. */
    const where = 'document.querySelector(\'[role=img][aria-label^="The path"]\').outerHTML';
    const standsStill = async (): Promise<void> => {
      await go!.waitFor();
      const before = await page.evaluate(where);
      // Longer than from one hop to the next.
      await page.waitForTimeout(900);
      assert.ok((await page.evaluate(where)) === before, 'it stands still');
    };
    // It goes by itself, and on from where it was stopped.
    await reaches(3);
    await stop!.click();
    await standsStill();
    const stopped = await hopOf(page);
    assert.ok(stopped >= 3);
    await go!.click();
    await reaches(stopped + 1);
    // A key that is pressed on a button is the button's.
    await page.locator('.walk-area').focus();
    await page.keyboard.press('Space');
    await standsStill();
    const held = await hopOf(page);
    assert.ok(held > stopped);
    await page.keyboard.press('Space');
    await stop!.waitFor();
    await reaches(held + 1);
    for (const replay of [
      () => page.keyboard.press('r'),
      () => page.getByRole('button', { name: 'Replay', exact: true }).click(),
    ]) {
      await reaches(8);
      await page.keyboard.press('Space');
      await go!.waitFor();
      await replay();
      await stop!.waitFor();
      assert.ok((await hopOf(page)) < 8, 'it begins anew');
    }
    // To its end, where it stops by itself.
    await eventuallyHolds(async () => assert.equal(await hopOf(page), 17));
    await go!.waitFor();
    await go!.click();
    await stop!.waitFor();
    assert.ok((await hopOf(page)) < 17, 'it begins anew');
    noComplaints(reader);
  });

  it('gives its picture away, with the native socket as a red dashed line and the overlay as a blue one', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      const options = { reducedMotion: 'reduce', acceptDownloads: true, colorScheme } as const;
      await using reader = await openPage(browser, served.address, '/walk?path=vxlan', options);
      const { page } = reader;
      await seesText(page, 'Hop 1 of 13');
      const colours = await page.evaluate(`['native', 'tun'].map((name) => {
        const probe = document.body.appendChild(document.createElement('i'));
        probe.style.color = 'var(--' + name + ')';
        return getComputedStyle(probe).color;
      })`);
      const [red, blue] = colours as [string, string];
      const [[r, g, b], [r2, g2, b2]] = [red, blue].map((colour) => colour.match(/\d+/g)!.map(Number)) as [Rgb, Rgb];
      assert.ok(r > g && r > b, red);
      assert.ok(b2 > g2 && b2 > r2, blue);
      const saved = async (type: 'SVG' | 'PNG'): Promise<Buffer> => {
        const [download] = await Promise.all([
          page.waitForEvent('download'),
          page.getByRole('button', { name: type, exact: true }).click(),
        ]);
        assert.equal(download.suggestedFilename(), `weft-walk-node-001-node-002-vxlan.${type.toLowerCase()}`);
        return readFileSync(await download.path());
      };
      const svg = (await saved('SVG')).toString();
      assert.match(svg, /^<svg /);
      assert.doesNotMatch(svg, /var\(|light-dark/);
      const lines = [...svg.matchAll(/<path d="([^"]*)"[^>]*>/g)].map(([line, way]) => ({
        way: way!,
        stroke: /stroke="([^"]*)"/.exec(line)?.[1],
        isDashed: /stroke-dasharray="6 4"/.test(line),
      }));
      assert.deepEqual(
        lines.map(({ stroke, isDashed }) => [stroke, isDashed]),
        [
          [red, true],
          [blue, true],
        ],
      );
      // Each from one end of the picture to the other; but the native one has fewer places on its way.
      const [native, overlay] = lines.map(({ way }) =>
        way.match(/-?[\d.]+ -?[\d.]+/g)!.map((spot) => spot.split(' ').map(Number)),
      );
      assert.ok(native!.length < overlay!.length);
      for (const spots of [native!, overlay!]) {
        const [first, last] = [spots[0]!, spots.at(-1)!];
        assert.ok(first[0]! < 620 && last[0]! > 620, 'from the left host to the right one');
        assert.ok(Math.max(...spots.map(([, y]) => y!)) > 300, 'down to the wire');
        assert.ok(first[1]! < 97 && last[1]! < 97, 'from user space to user space');
      }
      const png = await saved('PNG');
      assert.equal(png.toString('latin1', 0, 4), '\x89PNG');
      assert.deepEqual([png.readUInt32BE(16), png.readUInt32BE(20)], [2480, 744]);
      const drawn = (await page.evaluate(`(async () => {
        const bytes = Uint8Array.from(atob(${JSON.stringify(png.toString('base64'))}), (one) => one.charCodeAt(0));
        const picture = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
        const context = new OffscreenCanvas(picture.width, picture.height).getContext('2d');
        context.drawImage(picture, 0, 0);
        const { data } = context.getImageData(0, 0, picture.width, picture.height);
        const count = (r, g, b) => {
          let found = 0;
          for (let at = 0; at < data.length; at += 4)
            if (data[at] === r && data[at + 1] === g && data[at + 2] === b) found++;
          return found;
        };
        return [count(${[r, g, b]}), count(${[r2, g2, b2]})];
      })()`)) as [number, number];
      // Dashes of some hundred pixels' length in all, two or three wide.
      for (const pixels of drawn) assert.ok(pixels > 1_000, `${drawn.join(' red, ')} blue pixels`);
      noComplaints(reader);
    }
  });

  it('marks the way that is in use, and says so where that one is not drawn', async () => {
    const paths: readonly PeerPath[] = ['skipped', 'wireguard', 'command'];
    const own = new SimulatedFleet({ hosts: 3, pathTo: (peer) => paths[peer]! });
    await using page3 = await servePage(own.sources);
    await using reader = await openPage(browser, page3.address, `/walk?from=${nameOf(0)}&to=${nameOf(1)}`);
    const { page } = reader;
    const inUse = page.locator('.way').filter({ hasText: 'in use' });
    assert.equal(await inUse.textContent(), 'wireguardin use');
    assert.equal(await inUse.getAttribute('aria-pressed'), 'true');
    assert.equal(await page.getByText('is not drawn').count(), 0);
    await page.locator('label.end select').nth(1).selectOption(nameOf(2));
    await seesText(page, /The path in use \(command of the extension\) is not drawn\. Shown is udp, user space\./);
    assert.equal(await inUse.count(), 0);
    assert.deepEqual(await violations(page), []);
    noComplaints(reader);
  });

  it('is filtered on Walk and Host too', async () => {
    await using reader = await openPage(browser, served.address, '/walk', { reducedMotion: 'reduce' });
    const { page } = reader;
    const options = async (label: string): Promise<unknown> =>
      page.evaluate(`Array.from(
        [...document.querySelectorAll('label.end')].find((each) => each.textContent.startsWith('${label} ')).querySelectorAll('option'),
        (each) => each.value,
      )`);
    const filter = page.getByRole('searchbox', { name: 'Filter' });
    await page.locator('label.end').first().waitFor();
    assert.deepEqual(await options('from'), [0, 1, 2, 3, 4].map(nameOf));
    await filter.fill('node-004');
    // What is chosen stays.
    await eventuallyHolds(async () => {
      assert.deepEqual(await options('from'), [nameOf(0), nameOf(3)]);
      assert.deepEqual(await options('to'), [nameOf(1), nameOf(3)]);
    });
    await filter.fill('');
    await page.getByRole('navigation', { name: 'Screens' }).getByRole('link', { name: 'Host' }).click();
    const rows = page.locator('table.state tbody tr');
    const rules = page.locator('pre');
    await eventuallyHolds(async () => {
      assert.deepEqual(await options('host'), [0, 1, 2, 3, 4].map(nameOf));
      assert.equal(await rows.count(), 2);
      assert.equal(await rules.textContent(), 'oif flannel0 masquerade\niif flannel0 accept');
    });
    await filter.fill('route');
    await eventuallyHolds(async () => {
      assert.equal(await rows.count(), 1);
      assert.match((await rows.textContent())!, /^route10\.0\.0\.0\/8 dev flannel0/);
    });
    await filter.fill('masq');
    await eventuallyHolds(async () => {
      assert.equal(await rules.textContent(), 'oif flannel0 masquerade');
      assert.equal(await rows.count(), 0);
    });
    await filter.fill('node-004');
    await eventuallyHolds(async () => assert.deepEqual(await options('host'), [nameOf(0), nameOf(3)]));
    noComplaints(reader);
  });

  it('has the figures of a host: rates, paths and their shares, drops by reason, processor time and memory', async () => {
    const own = new SimulatedFleet({
      ...{ hosts: 5, packetsPerSecond: 40_000 },
      pathTo: (peer) => (peer < 3 ? 'fast-path' : 'forwarder'),
    });
    await using page5 = await servePage(own.sources);
    await using reader = await openPage(browser, page5.address, `/host/${nameOf(0)}`);
    const { page } = reader;
    await seesText(page, 'No packet has been dropped, by the agent or by the kernel.');
    assert.deepEqual(await hostRows(page, 'Dropped, by reason'), []);
    // A packet more or less is on either side of a look.
    await page
      .getByText(/^(?:89\d|90\d) pkt\/s, 5\.1\d Mbit\/s$/)
      .nth(1)
      .waitFor();
    await eventuallyHolds(async () => {
      const [cpu, memory] = await hostRows(page, 'Process');
      assert.deepEqual([cpu![0], cpu![1]], ['CPU', '1.0 %']);
      assert.deepEqual([memory![0], memory![1]], ['memory', '93.5 MiB']);
    });
    const headers = headersFor(page5.address);
    const url = new URL(`/hosts/${nameOf(0)}/api/v1/peers`, page.url()).href;
    const counted = async (): Promise<Map<string, number>> => {
      const { peers } = (await (await page.request.get(url, { headers })).json()) as Answer<'/peers'>;
      const sums = new Map<string, number>();
      for (const { path, tx } of peers) sums.set(path, (sums.get(path) ?? 0) + tx!.packets);
      return sums;
    };
    const before = await counted();
    await page.waitForTimeout(2_000);
    const rises = new Map(Array.from(await counted(), ([path, packets]) => [path, packets - before.get(path)!]));
    const all = [...rises.values()].reduce((sum, packets) => sum + packets, 0);
    await eventuallyHolds(async () => {
      const paths = await hostRows(page, 'Paths to peers');
      assert.deepEqual(
        paths.map(([path, peers]) => [path, peers]),
        [
          ['fast path (eBPF)', '2'],
          ['user space (udp)', '2'],
        ],
      );
      for (const [index, path] of ['fast-path', 'forwarder'].entries()) {
        const share = (100 * rises.get(path)!) / all;
        assert.ok(share > 0 && Math.abs(Number.parseFloat(paths[index]![2]!) - share) < 1, `${share} %: ${paths}`);
      }
    });
    own.drop(0, { agent: { 'too-big': 5 }, kernel: { 'too-big': 40, 'filtered-in': 0 } });
    await eventuallyHolds(async () => {
      const drops = await hostRows(page, 'Dropped, by reason');
      assert.deepEqual(
        drops.map(([reason]) => reason),
        ['kernel: too-big', 'too-big'],
      );
      assert.ok(Number(drops[0]![1]) > Number(drops[1]![1]) && Number(drops[1]![1]) > 5, drops.join(' '));
    });
    // Each with a line: the last column has the pixels of it that are drawn.
    await eventuallyHolds(async () => {
      for (const row of await hostRows(page, 'Dropped, by reason')) assert.ok(Number(row.at(-1)) > 10, row.join(' '));
    });
    await seesText(page, 'kernel: outside the agent, of all programs of this host.');
    assert.deepEqual(await violations(page), []);
    noComplaints(reader);
  });

  it('opens the card of a host that is clicked in the map', async () => {
    await using reader = await openPage(browser, served.address, '/map');
    const { page } = reader;
    await seesText(page, '5 hosts, 2 problems');
    const map = page.getByRole('img', { name: /^Map of 5 hosts/ });
    const left = (await map.boundingBox())!;
    // Where hosts are, by what is drawn on the uppermost canvas: pieces that do not touch.
    const places = (await page.evaluate(`(() => {
      const canvas = document.querySelectorAll('.map canvas')[2];
      const { width, height } = canvas;
      const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
      const seen = new Set();
      const pieces = [];
      for (let start = 0; start < width * height; start++) {
        if (data[4 * start + 3] === 0 || seen.has(start)) continue;
        let [sumX, sumY, size] = [0, 0, 0];
        const queue = [start];
        seen.add(start);
        for (const at of queue) {
          const [x, y] = [at % width, Math.floor(at / width)];
          sumX += x, sumY += y, size++;
          for (const [nextX, nextY] of [[x - 1, y], [x + 1, y], [x, y - 1], [x, y + 1]]) {
            const next = nextY * width + nextX;
            if (nextX < 0 || nextX >= width || nextY < 0 || nextY >= height) continue;
            if (data[4 * next + 3] === 0 || seen.has(next)) continue;
            seen.add(next);
            queue.push(next);
          }
        }
        if (size > 500) pieces.push([sumX / size / devicePixelRatio, sumY / size / devicePixelRatio]);
      }
      return pieces;
    })()`)) as [number, number][];
    assert.equal(places.length, 5);
    const clicked = new Set<string>();
    for (const [x, y] of places) {
      const upper = 'document.querySelectorAll(".map canvas")[2].toDataURL()';
      const before = await page.evaluate(upper);
      await page.mouse.click(left.x + x, left.y + y);
      const name = await eventually('a host is chosen', async () => {
        const host = new URL(page.url()).searchParams.get('host');
        return host !== null && !clicked.has(host) && host;
      });
      clicked.add(name);
      await page.locator('.side h2').filter({ hasText: name }).waitFor();
      // The one that was clicked, and no other, has a frame now.
      await eventuallyHolds(async () => assert.notEqual(await page.evaluate(upper), before));
      const [own, others] = await framed(page, places, [x, y]);
      assert.ok(own! > 50 && others === 0, `${name}: ${own} pixels of its frame, ${others} of others`);
    }
    assert.deepEqual([...clicked].sort(), [0, 1, 2, 3, 4].map(nameOf));
    await page.mouse.click(left.x + 3, left.y + 3);
    await page.waitForURL((url) => !url.searchParams.has('host'));
    await page.locator('.rows').waitFor();
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

type Rgb = [number, number, number];

/** Pixels in the colour of a chosen host, around the place of one host and around those of all others. */
async function framed(
  page: Page,
  places: readonly [number, number][],
  [x, y]: readonly [number, number],
): Promise<number[]> {
  return (await page.evaluate(`(() => {
    const probe = document.body.appendChild(document.createElement('i'));
    probe.style.color = 'var(--tun)';
    const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
    probe.remove();
    const canvas = document.querySelectorAll('.map canvas')[2];
    const context = canvas.getContext('2d');
    const around = ([x, y]) => {
      const [left, top] = [x - 70, y - 30].map((value) => Math.round(value * devicePixelRatio));
      const { data } = context.getImageData(left, top, 140 * devicePixelRatio, 60 * devicePixelRatio);
      let found = 0;
      for (let at = 0; at < data.length; at += 4)
        if (data[at] === r && data[at + 1] === g && data[at + 2] === b && data[at + 3] === 255) found++;
      return found;
    };
    const isOwn = ([x, y]) => x === ${x} && y === ${y};
    const places = ${JSON.stringify(places)};
    return [around([${x}, ${y}]), places.filter((place) => !isOwn(place)).reduce((sum, place) => sum + around(place), 0)];
  })()`)) as number[];
}

/** Less than every second one of 60 frames a second is late. */
const MAX_FRAME_MS = 25;

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

  it('are drawn at 60 frames a second, found and measured', async (t) => {
    await using browser = await startBrowser({ isFirst: true });
    const simulated = new SimulatedFleet({ hosts: 500, asked: 60, talkative: 24 });
    simulated.breakLink(17, 18, 'UDP port 8285 is filtered');
    await using served = await servePage(simulated.sources);
    await using reader = await openPage(browser, served.address, '/map');
    const { page } = reader;
    await seesText(page, /500 hosts, 1 problem/);
    // Dots need two looks.
    await until(page, '/one dot: [\\d.k ]+packets/.test(document.body.textContent)');
    let medianMs = Number.POSITIVE_INFINITY;
    // What else the machine does at the moment may take a second of it.
    for (let attempt = 1; attempt <= 2 && medianMs >= MAX_FRAME_MS; attempt++) {
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
      const at = (share: number): number => frames[Math.floor(share * (frames.length - 1))]!;
      const [median, most, longest] = [at(0.5), at(0.95), at(1)].map((ms) => `${ms.toFixed(1)} ms`);
      t.diagnostic(`500 hosts, a frame: median ${median}, 95 % within ${most}, longest ${longest}`);
      medianMs = at(0.5);
    }
    assert.ok(medianMs < MAX_FRAME_MS, `a frame takes ${medianMs} ms`);
    await page.getByRole('searchbox', { name: 'Filter' }).fill('node-321');
    await seesText(page, '1 of 500 hosts');
    await page.goto(new URL('/matrix', page.url()).href);
    await seesText(page, `${nameOf(17)} → ${nameOf(18)}`);
    await page.getByRole('img', { name: /Matrix of 500 hosts/ }).waitFor();
    assert.deepEqual(await violations(page), []);
    noComplaints(reader);
  });
});
