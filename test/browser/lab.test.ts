import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Browser } from 'playwright-core';
import type { Answer } from '../../src/api/schema.ts';
import type { LabResult } from '../../src/lab/lab-result.ts';
import { run } from '../../src/linux/run.ts';
import { weft } from '../netns/lab-command.ts';
import { noComplaints, openPage, PATIENCE_MS, seesText, startBrowser, until, violations } from './browser.ts';

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
  /** What an agent says of the others. */
  const peersOf = async (host: string): Promise<Answer<'/peers'>> =>
    (await fetch(address(`/hosts/${host}/api/v1/peers`))).json() as Promise<Answer<'/peers'>>;

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

  it('measures every pair', async () => {
    await using reader = await openPage(browser, address('/matrix'));
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
    await page.locator('.diff li', { hasText: 'add route 10.244.0.0/16 dev flannel0' }).first().waitFor();
    const changed = page.locator('tr', { hasText: 'kernel-changed' }).last();
    await changed.getByRole('button').click();
    for (const operation of ['add address', 'add route 10.244.0.0/16 dev flannel0'])
      await page.locator('.diff li.good', { hasText: operation }).first().waitFor();
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

  it('has a red cell for a path that is cut, soon after the agent knows', async (t) => {
    await using reader = await openPage(browser, address('/matrix'));
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
        const { peers } = await peersOf('h1');
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
