import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Browser } from 'playwright-core';
import type { LabResult } from '../../src/lab/lab-result.ts';
import { stateDirectoryOf } from '../../src/lab/registry.ts';
import { run } from '../../src/linux/run.ts';
import { weft } from '../netns/lab-command.ts';
import { eventuallyHolds } from '../netns/waiting.ts';
import { hostRows, noComplaints, openPage, seesText, startBrowser, until, violations } from './browser.ts';

/** Until a path that was cut is red, on a machine that does other things as well. With nothing else it is one or two seconds (bench/page.ts). */
const MAX_RED_MS = 10_000;

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
    // Figures with their lines: of the process, and of the pings that pass.
    await eventuallyHolds(async () => {
      const own = await hostRows(page, 'Process');
      assert.deepEqual(
        own.map(([name]) => name),
        ['CPU', 'memory'],
      );
      const [[, cpu, cpuLine], [, memory, memoryLine]] = own as [string[], string[]];
      assert.match(cpu!, /^<?\d+(?:\.\d)? %$/);
      assert.match(memory!, /^\d+(?:\.\d)? MiB$/);
      for (const line of [cpuLine, memoryLine]) assert.ok(Number(line) > 0, 'its line is drawn');
      const paths = await hostRows(page, 'Paths to peers');
      assert.equal(
        paths.reduce((sum, [, peers]) => sum + Number(peers), 0),
        lab.hosts.length - 1,
      );
      const shares = paths.map(([, , share]) => Number(/^([\d.]+) %$/.exec(share!)?.[1]));
      assert.ok(Math.abs(shares.reduce((sum, share) => sum + share, 0) - 100) < 1, paths.join(' '));
    });
    noComplaints(reader);
  });

  it('has what the kernel of a host drops, with the line of it', async () => {
    await using reader = await openPage(browser, lab.page!, '/host/h2');
    const { page } = reader;
    const [h1, h2] = [lab.hosts[0]!, lab.hosts[1]!];
    const filtered = async (): Promise<readonly [count: number, line: number] | undefined> => {
      const drops = await hostRows(page, 'Dropped, by reason');
      const row = drops.find(([reason]) => reason === 'kernel: filtered-in');
      return row && [Number(row[1]), Number(row[2])];
    };
    await seesText(page, /No packet has been dropped, by the agent or by the kernel\.|^kernel: outside the agent/);
    const [before] = (await filtered()) ?? [0];
    const rule = ['INPUT', '-p', 'udp', '--dport', '9999', '-j', 'DROP'];
    const iptables = (verb: string): Promise<unknown> =>
      run(['iptables', '-w', '10', verb, ...rule], { netns: h2.namespace });
    await iptables('-I');
    try {
      for (let i = 0; i < 20; i++)
        await run(['socat', '-u', 'STDIN', `UDP4-SENDTO:${h2.address}:9999`], { netns: h1.namespace, stdin: 'x' });
      await eventuallyHolds(async () => {
        const [count, line] = (await filtered()) ?? [0, 0];
        assert.ok(count >= before + 20, `${count} after ${before}`);
        assert.ok(line > 0, 'its line is drawn');
      });
    } finally {
      await iptables('-D');
    }
    noComplaints(reader);
  });

  it('has a red cell soon after a path is cut', async (t) => {
    await using reader = await openPage(browser, lab.page!, '/matrix');
    const { page } = reader;
    const [h1, h2] = [lab.hosts[0]!, lab.hosts[1]!];
    const rule = ['OUTPUT', '-p', 'udp', '-d', h2.address, '--dport', '8285', '-j', 'DROP'];
    const iptables = (verb: string): Promise<unknown> =>
      run(['iptables', '-w', '10', verb, ...rule], { netns: h1.namespace });
    const red = page.getByRole('button', { name: /^h1 to h2: lost/ });
    let redMs = Number.POSITIVE_INFINITY;
    // What else the machine does at the moment may take seconds of it.
    for (let attempt = 1; attempt <= 2 && redMs > MAX_RED_MS; attempt++) {
      await until(page, "document.querySelectorAll('td.cell-none, td.cell-bad').length === 0");
      const cutAt = performance.now();
      await iptables('-I');
      try {
        await red.waitFor();
        redMs = performance.now() - cutAt;
        t.diagnostic(`red ${Math.round(redMs)} ms after the path was cut`);
        assert.equal(await page.locator('td.cell-bad', { has: red }).count(), 1);
        await red.click();
        await page.locator('.remedy').first().waitFor();
      } finally {
        await iptables('-D');
      }
    }
    assert.ok(redMs <= MAX_RED_MS, `red after ${redMs} ms`);
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
    await seesText(page, /could not reach the agent at .*weft\.sock/);
    noComplaints(reader);
  });

  it('leaves no file that leads to it when its lab is removed', async () => {
    const file = opened();
    await run([...weft, 'lab', 'down', lab.id]);
    assert.equal(existsSync(dirname(file)), false);
  });
});
