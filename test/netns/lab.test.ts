import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { LabResult } from '../../src/lab/lab-result.ts';
import { identifyProcess } from '../../src/lab/process-identity.ts';
import { readRecord } from '../../src/lab/registry.ts';
import { run } from '../../src/linux/run.ts';
import { interruptedLab, namespacesOfLab, weft } from './lab-command.ts';
import { PATIENCE_MS } from './waiting.ts';

describe('weft lab', () => {
  it('passes with two hosts, prints nothing but JSON, and leaves nothing behind', async () => {
    const { stdout, stderr, exitCode } = await run([...weft, 'lab', '--hosts', '2', '--json'], { okExitCodes: 'any' });
    const result = JSON.parse(stdout) as LabResult;
    assert.deepEqual(result.failures, []);
    assert.equal(result.ok, true);
    assert.equal(exitCode, 0);
    assert.match(stderr, /✔ agents/);
    assert.equal(result.hosts.length, 2);
    assert.equal(result.pings?.pairs.length, 4 * 3);
    assert.equal(result.pings.received, result.pings.sent);
    assert.equal(result.mtuPing?.packetBytes, 1472);
    assert.ok((result.throughputGbps ?? 0) > 0);
    assert.equal(result.fileHashOk, true);
    assert.ok(result.file);
    assert.equal(result.file.receivedBytes, result.file.bytes);
    assert.ok(result.file.bytes >= 1024 * 1024);
    assert.deepEqual(
      result.leases?.map((lease) => lease.subnet),
      result.hosts.map((host) => host.subnet),
    );
    for (const { routes } of result.routes ?? []) {
      assert.ok(routes.some((route) => route.destination === '10.244.0.0/16' && route.device === 'flannel0'));
    }
    assert.deepEqual(
      result.walk?.hops.map((hop) => `${hop.space} ${hop.node} ${hop.place} ${(hop.inner ?? hop.packet)?.ttl ?? '-'}`),
      [
        'user h1c1 application -',
        'kernel h1c1 socket · UDP · IP -',
        'kernel h1c1 eth0 64',
        'kernel h1 cni0 64',
        'kernel h1 routing -',
        'kernel h1 flannel0 63',
        'user h1 flanneld -',
        'kernel h1 socket · UDP · IP -',
        'kernel h1 eth0 62',
        'physical underlay port1 62',
        'physical underlay port2 62',
        'kernel h2 eth0 62',
        'kernel h2 IP · UDP · socket -',
        'user h2 flanneld -',
        'kernel h2 flannel0 61',
        'kernel h2 routing -',
        'kernel h2 cni0 60',
        'kernel h2c1 eth0 60',
        'kernel h2c1 IP · UDP · socket -',
        'user h2c1 application -',
      ],
    );
    const wrapped = result.walk.hops.filter((hop) => hop.inner !== undefined);
    assert.equal(wrapped.length, 4);
    for (const { packet } of wrapped) {
      assert.equal(`${packet?.source}:${packet?.sourcePort}`, '192.168.77.1:8285');
      assert.equal(`${packet?.destination}:${packet?.destinationPort}`, '192.168.77.2:8285');
    }
    assert.equal(result.nativeWalk?.hops.filter((hop) => hop.captured).length, 4);
    assert.deepEqual(await namespacesOfLab(result.id), []);
    assert.equal(readRecord(result.id), undefined);
  });

  it('keeps a lab that goes on carrying packets, until it is taken down', async () => {
    const { stdout } = await run([...weft, 'lab', '--hosts', '2', '--keep', '--json']);
    const result = JSON.parse(stdout) as LabResult;
    try {
      assert.equal(result.kept, true);
      const [from, to] = [result.hosts[0]!.containers[0]!, result.hosts[1]!.containers[1]!];
      await run(['ping', '-n', '-c', '1', '-W', '2', to.address!], { netns: from.namespace });
      assert.ok(identifyProcess(result.hosts[0]!.agent!.pid));
    } finally {
      const down = await run([...weft, 'lab', 'down', result.id]);
      assert.match(down.stdout, new RegExp(`removed lab ${result.id}: 7 namespaces`));
    }
    for (const host of result.hosts) assert.equal(identifyProcess(host.agent!.pid), undefined);
    assert.deepEqual(await namespacesOfLab(result.id), []);
    const again = await run([...weft, 'lab', 'down', result.id], { okExitCodes: 'any' });
    assert.notEqual(again.exitCode, 0);
    assert.match(again.stderr, /there is no lab/);
  });

  it('removes everything when it is interrupted', async () => {
    const id = await interruptedLab({ signal: 'SIGINT', exitCode: 130 });
    assert.deepEqual(await namespacesOfLab(id), []);
    assert.equal(readRecord(id), undefined);
  });

  it('can be taken down after it was killed, with its agents', async () => {
    const id = await interruptedLab({ signal: 'SIGKILL', exitCode: undefined });
    const record = readRecord(id);
    assert.ok(record);
    const agents = record.processes.map((entry) => entry.pid ?? 0).filter((pid) => identifyProcess(pid));
    assert.notEqual(agents.length, 0);
    await run([...weft, 'lab', 'down', id]);
    for (const pid of agents) assert.equal(identifyProcess(pid), undefined);
    assert.deepEqual(await namespacesOfLab(id), []);
    assert.equal(existsSync(`/run/weft-lab/${id}.json`), false);
  });

  it('says what is missing: TUN device, root, sensible numbers', async () => {
    const inMounts = (script: string) => [
      'unshare',
      '-m',
      'sh',
      '-c',
      `${script} && exec "$@"`,
      'sh',
      ...weft,
      'lab',
      '--json',
    ];
    const attempts: [string[], RegExp][] = [
      [inMounts('mount -t tmpfs -o ro none /dev/net'), /WEFT_TUN_MISSING.*modprobe tun/],
      [inMounts('mount -t tmpfs -o nodev none /dev/net'), /WEFT_TUN_DENIED.*--device/],
      [
        [process.execPath, '--input-type=module', '-e', notRoot],
        /could not make network namespaces as user 65534 \[WEFT_NOT_ROOT\].*as root/,
      ],
      [[...weft, 'lab', '--hosts', '33'], /--hosts.*from 2 to 32/],
      [[...weft, 'lab', '--hosts', 'many'], /--hosts.*from 2 to 32/],
    ];
    for (const [argv, expected] of attempts) {
      const { stderr, stdout, exitCode } = await run(argv, { okExitCodes: 'any', timeoutMs: PATIENCE_MS });
      assert.notEqual(exitCode, 0);
      assert.equal(stdout, '');
      assert.match(stderr, expected);
    }
  });
});

/** A process without privileges, which need not be able to read this folder: the module is loaded before. */
const notRoot = `
  const { requireRoot } = await import(${JSON.stringify(new URL('../../src/lab/removal.ts', import.meta.url).href)});
  const { describeError } = await import(${JSON.stringify(new URL('../../src/errors.ts', import.meta.url).href)});
  process.setuid(65534);
  try { requireRoot(); } catch (error) { console.error(describeError(error)); process.exitCode = 1; }
`;
