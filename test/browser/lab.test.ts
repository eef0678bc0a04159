import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Browser } from 'playwright-core';
import type { LabResult } from '../../src/lab/lab-result.ts';
import { run } from '../../src/linux/run.ts';
import { weft } from '../netns/lab-command.ts';
import { noComplaints, openPage, seesText, startBrowser, until, violations } from './browser.ts';

describe('the page of a lab that is kept', () => {
  let lab: LabResult;
  let browser: Browser;
  const address = (path: string): string => new URL(path, lab.page!).href;
  before(async () => {
    const { stdout } = await run([...weft, 'lab', '--keep', '--json']);
    lab = JSON.parse(stdout) as LabResult;
    browser = await startBrowser();
  });
  after(async () => {
    await browser?.close();
    if (lab !== undefined) await run([...weft, 'lab', 'down', lab.id]);
  });

  it('has its address in the result, and everything went well', () => {
    assert.deepEqual(lab.failures, []);
    assert.match(lab.page ?? '', /^http:\/\/127\.0\.0\.1:\d+\/$/);
  });

  it('draws the hosts, and packets between them that were counted', async () => {
    await using reader = await openPage(browser, address('/map'));
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

  it('walks the packet that the lab has captured, with its times and headers', async () => {
    await using reader = await openPage(browser, address('/walk'), { reducedMotion: 'reduce' });
    const { page } = reader;
    const { walk, nativeWalk } = lab;
    assert.ok(walk !== null && nativeWalk !== null);
    await seesText(page, `Hop 1 of ${walk.hops.length}`);
    for (const { durationUs } of [walk, nativeWalk]) await seesText(page, `${durationUs.toFixed(0)} µs`);
    for (const [index, hop] of walk.hops.entries()) {
      await seesText(page, `Hop ${index + 1} of ${walk.hops.length}`);
      if (hop.packet !== undefined) await seesText(page, `ttl ${hop.packet.ttl}  len ${hop.packet.lengthBytes}`);
      if (hop.atUs !== undefined) await seesText(page, `+${hop.atUs.toFixed(1)} µs`);
      await page.keyboard.press('ArrowRight');
    }
    noComplaints(reader);
  });

  it('tells what happened and what it did to the kernel', async () => {
    await using reader = await openPage(browser, address('/timeline'));
    const { page } = reader;
    await page
      .getByRole('button', { name: /Allocated lease .*192\.168\.77\.1/ })
      .first()
      .waitFor();
    await run(['ip', '-n', lab.hosts[0]!.namespace, 'route', 'delete', '10.244.0.0/16', 'dev', 'flannel0']);
    const repaired = page.locator('tr', { hasText: 'kernel-repaired' }).filter({ hasText: '10.244.0.0/16' });
    await repaired.getByRole('button').first().click();
    await page.getByRole('heading', { level: 2, name: 'Changed in the kernel' }).waitFor();
    await page.locator('.diff li', { hasText: 'flannel0' }).first().waitFor();
    noComplaints(reader);
  });

  it('looks inside a host', async () => {
    await using reader = await openPage(browser, address('/host/h2'));
    const { page } = reader;
    await seesText(page, 'all as wanted');
    await seesText(page, /flannel0 tun mtu 1472/);
    await page.locator('pre', { hasText: /masq|flannel/i }).waitFor();
    await until(page, "document.querySelectorAll('.spark canvas').length >= 3");
    noComplaints(reader);
  });

  it('says that a host has gone', async () => {
    await using reader = await openPage(browser, address('/map'));
    const { page } = reader;
    await page.getByRole('button', { name: /^h3 .*ready/ }).waitFor();
    process.kill(lab.hosts[2]!.agent!.pid, 'SIGKILL');
    await seesText(page, 'h3 does not answer');
    await page.goto(address('/host/h3'));
    await seesText(page, /could not ask the agent at .*weft\.sock/);
    noComplaints(reader);
  });
});
