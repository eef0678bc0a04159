import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Browser } from 'playwright-core';
import type { Answer } from '../../src/api/schema.ts';
import type { LabResult } from '../../src/lab/lab-result.ts';
import { stateDirectoryOf } from '../../src/lab/registry.ts';
import { run } from '../../src/linux/run.ts';
import { weft } from '../netns/lab-command.ts';
import { eventuallyHolds } from '../netns/waiting.ts';
import {
  headersFor,
  noComplaints,
  openPage,
  PATIENCE_MS,
  type Reader,
  seesText,
  startBrowser,
  until,
  violations,
} from './browser.ts';

describe('the page of a lab that is kept', () => {
  let lab: LabResult;
  let browser: Browser;
  /** In place of the desktop: writes down what it is to open. */
  const desktop = mkdtempSync(join(tmpdir(), 'weft-desktop-'));
  const opened = (): string => readFileSync(join(desktop, 'opened'), 'utf8').trim();
  before(async () => {
    writeFileSync(join(desktop, 'xdg-open'), `#!/bin/sh\necho "$@" >>${desktop}/opened\n`, { mode: 0o755 });
    const env = { DISPLAY: ':99', PATH: `${desktop}:${process.env.PATH}` };
    const { stdout } = await run([...weft, 'lab', '--open', '--json'], { env });
    lab = JSON.parse(stdout) as LabResult;
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.close();
    if (lab !== undefined && existsSync(stateDirectoryOf(lab.id))) await run([...weft, 'lab', 'down', lab.id]);
    rmSync(desktop, { recursive: true });
  });
  /** What an agent says of the others. */
  const peersOf = async ({ page }: Reader, host: string): Promise<Answer<'/peers'>> => {
    const url = new URL(`/hosts/${host}/api/v1/peers`, page.url()).href;
    const answer = await page.request.get(url, { headers: headersFor(lab.page!) });
    return (await answer.json()) as Answer<'/peers'>;
  };

  it('has its address in the result, and everything went well', () => {
    assert.deepEqual(lab.failures, []);
    assert.match(lab.page ?? '', /^http:\/\/127\.0\.0\.1:\d+\/#token=[\w-]{43}$/);
  });

  it('is opened in a browser, and no other user of the machine can read its address', async () => {
    await eventuallyHolds(async () => assert.ok(existsSync(join(desktop, 'opened'))));
    // One argument, for everybody to read in /proc.
    const file = opened();
    assert.match(file, /^\/\S+\/open\.html$/);
    assert.ok(readFileSync(file, 'utf8').includes(lab.page!));
    for (const path of [file, dirname(file), join(stateDirectoryOf(lab.id), 'page.log')]) {
      assert.equal(statSync(path).mode & 0o077, 0, path);
    }
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await page.goto(`file://${file}`);
      await seesText(page, '3 hosts, no problem');
      assert.equal(page.url(), new URL('/', lab.page!).href);
    } finally {
      await context.close();
    }
  });

  it('draws the hosts, and packets between them that were counted', async () => {
    await using reader = await openPage(browser, lab.page!, '/map');
    const { page } = reader;
    for (const { name, subnet } of lab.hosts) {
      await page.getByRole('button', { name: new RegExp(`^${name} ${subnet} ?, ready`) }).waitFor();
    }
    // The pings between neighbours.
    await until(page, "/[1-9]\\d* pkt.s/.test(document.querySelector('.rows').textContent)");
    await until(
      page,
      `(() => {
        const canvas = document.querySelectorAll('canvas')[1];
        return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
      })()`,
    );
    await page.getByRole('button', { name: /^h2 / }).click();
    await page.waitForURL('**/map?host=h2');
    await page.getByRole('heading', { name: 'h2' }).waitFor();
    await seesText(page, 'user space (udp)');
    assert.deepEqual(await violations(page), []);
    noComplaints(reader);
  });

  it('measures every pair', async () => {
    await using reader = await openPage(browser, lab.page!, '/matrix');
    const { page } = reader;
    await until(page, "document.querySelectorAll('td.cell-none').length === 0");
    await until(
      page,
      "[...document.querySelectorAll('td button')].every((cell) => /^[\\d.]+$/.test(cell.textContent))",
    );
    await page.getByText('Path MTU', { exact: true }).first().click();
    await until(page, "[...document.querySelectorAll('td button')].every((cell) => cell.textContent === '1472')");
    assert.equal(await page.locator('td.cell-bad').count(), 0);
    noComplaints(reader);
  });

  it('walks the packet that the lab has captured, with its times and headers', async () => {
    await using reader = await openPage(browser, lab.page!, '/walk', { reducedMotion: 'reduce' });
    const { page } = reader;
    const { walk, nativeWalk } = lab;
    assert.ok(walk !== null && nativeWalk !== null);
    await seesText(page, `Hop 1 of ${walk.hops.length}`);
    for (const { durationUs } of [walk, nativeWalk]) await seesText(page, `${durationUs.toFixed(0)} µs`);
    for (const [index, hop] of walk.hops.entries()) {
      await seesText(page, `Hop ${index + 1} of ${walk.hops.length}`);
      if (hop.packet !== undefined) await seesText(page, `ttl ${hop.packet.ttl}  len ${hop.packet.lengthBytes}`);
      if (hop.atUs !== undefined) await seesText(page, `+${hop.atUs.toFixed(1)} µs`);
      if ((hop.atUs ?? 0) > 0) await seesText(page, /^\d+\.\d µs from .+ to here$/);
      await page.keyboard.press('ArrowRight');
    }
    noComplaints(reader);
  });

  it('tells what happened and what it did to the kernel', async () => {
    await using reader = await openPage(browser, lab.page!, '/timeline');
    const { page } = reader;
    await page
      .getByRole('button', { name: /Allocated lease .*192\.168\.77\.1/ })
      .first()
      .waitFor();
    await run(['ip', '-n', lab.hosts[0]!.namespace, 'route', 'delete', '10.244.0.0/16', 'dev', 'flannel0']);
    const repaired = page.locator('tr', { hasText: 'kernel-repaired' }).filter({ hasText: '10.244.0.0/16' });
    await repaired.getByRole('button').first().click();
    await page.getByRole('heading', { level: 2, name: 'Changed in the kernel' }).waitFor();
    await page.locator('.diff li', { hasText: 'add route 10.244.0.0/16 dev flannel0' }).first().waitFor();
    const changed = page.locator('tr', { hasText: 'kernel-changed' }).last();
    await changed.getByRole('button').click();
    for (const operation of ['add address', 'add route 10.244.0.0/16 dev flannel0'])
      await page.locator('.diff li.good', { hasText: operation }).first().waitFor();
    noComplaints(reader);
  });

  it('looks inside a host', async () => {
    await using reader = await openPage(browser, lab.page!, '/host/h2');
    const { page } = reader;
    await seesText(page, 'all as wanted');
    await seesText(page, /flannel0 tun mtu 1472/);
    await seesText(page, /^\d+ checks of weft doctor, /);
    await page.locator('pre', { hasText: /masq|flannel/i }).waitFor();
    await until(page, "document.querySelectorAll('.spark canvas').length >= 3");
    noComplaints(reader);
  });

  it('has a red cell for a path that is cut, soon after the agent knows', async (t) => {
    await using reader = await openPage(browser, lab.page!, '/matrix');
    const { page } = reader;
    const [h1, h2] = [lab.hosts[0]!, lab.hosts[1]!];
    await until(page, "document.querySelectorAll('td.cell-none').length === 0");
    const rule = ['OUTPUT', '-p', 'udp', '-d', h2.address, '--dport', '8285', '-j', 'DROP'];
    const iptables = (verb: string): Promise<unknown> =>
      run(['iptables', '-w', '10', verb, ...rule], { netns: h1.namespace });
    await iptables('-I');
    try {
      const red = page.getByRole('button', { name: /^h1 to h2: lost/ });
      const deadline = performance.now() + PATIENCE_MS;
      const isKnown = async (): Promise<boolean> => {
        const { peers } = await peersOf(reader, 'h1');
        const probe = peers.find(({ publicAddresses }) => publicAddresses.includes(h2.address))?.probe;
        return probe !== undefined && (probe.rttMs === undefined || (probe.lossRatio ?? 0) >= 0.5);
      };
      while (!(await isKnown())) assert.ok(performance.now() < deadline, 'the agent of h1 finds that h2 is cut off');
      const knownAt = performance.now();
      await red.waitFor();
      t.diagnostic(`red ${Math.round(performance.now() - knownAt)} ms after the agent knew`);
      assert.equal(await page.locator('td.cell-bad', { has: red }).count(), 1);
      await red.click();
      await page.locator('.remedy').first().waitFor();
    } finally {
      await iptables('-D');
    }
    await until(page, "document.querySelectorAll('td.cell-bad').length === 0");
    noComplaints(reader);
  });

  it('says that a host has gone', async () => {
    await using reader = await openPage(browser, lab.page!, '/map');
    const { page } = reader;
    await page.getByRole('button', { name: /^h3 .*ready/ }).waitFor();
    process.kill(lab.hosts[2]!.agent!.pid, 'SIGKILL');
    await seesText(page, 'h3 does not answer');
    await page.goto(new URL('/host/h3', page.url()).href);
    await seesText(page, /could not ask the agent at .*weft\.sock/);
    noComplaints(reader);
  });

  it('leaves no file that leads to it when its lab is removed', async () => {
    const file = opened();
    await run([...weft, 'lab', 'down', lab.id]);
    assert.equal(existsSync(dirname(file)), false);
  });
});
