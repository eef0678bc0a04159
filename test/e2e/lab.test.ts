import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { LabResult } from '../../src/lab/lab-result.ts';
import { identifyProcess } from '../../src/lab/process-identity.ts';
import { readRecord } from '../../src/lab/registry.ts';
import { run } from '../../src/linux/run.ts';
import { interruptedLab, namespacesOfLab, weft } from '../netns/lab-command.ts';

/** Everything that a run of two hosts looks at, whatever the store. */
function assertPassed(result: LabResult): void {
  assert.deepEqual(result.failures, []);
  assert.equal(result.ok, true);
  assert.equal(result.pings?.pairs.length, 4 * 3);
  assert.equal(result.pings.received, result.pings.sent);
  assert.equal(result.fileHashOk, true);
  assert.deepEqual(
    result.leases?.map(({ host, publicIp, subnet }) => [host, publicIp, subnet]),
    result.hosts.map(({ name, address, subnet }) => [name, address, subnet]),
  );
}

describe('weft lab on real servers', () => {
  it('etcd: the whole run; a kept lab has its server, until it is taken down', async () => {
    const { stdout } = await run([...weft, 'lab', '--hosts', '2', '--subnet-mgr', 'etcd', '--keep', '--json']);
    const result = JSON.parse(stdout) as LabResult;
    let servers: number[] = [];
    try {
      assertPassed(result);
      assert.equal(result.store?.kind, 'etcd');
      assert.match(result.store.endpoint, /^http:\/\/192\.168\.77\.253:2379$/);
      assert.match(result.store.version ?? '', /^3\.\d+\.\d+/);
      for (const { expiresAt } of result.leases ?? []) {
        const hours = (Date.parse(expiresAt ?? '') - Date.now()) / 3_600_000;
        assert.ok(hours > 23 && hours <= 24, `a lease of flannel's 24 hours ends ${expiresAt}`);
      }
      servers = serversOf(result.id, 'etcd');
      assert.equal(servers.length, 1);
      const { stdout: keys } = await run(['sh', '-c', result.store.commands[0]!.command]);
      for (const { subnet, address } of result.hosts) {
        assert.ok(
          keys.includes(`/coreos.com/network/subnets/${subnet?.replace('/', '-')}\n{"PublicIP":"${address}"`),
          keys,
        );
      }
    } finally {
      await run([...weft, 'lab', 'down', result.id]);
    }
    assertGone(result.id, servers);
    assert.deepEqual(await namespacesOfLab(result.id), []);
  });

  it('Kubernetes: the whole run, with pod CIDRs of the controller manager, and nothing left behind', async () => {
    const { stdout } = await run([...weft, 'lab', '--hosts', '2', '--subnet-mgr', 'kube', '--json'], {
      okExitCodes: 'any',
    });
    const result = JSON.parse(stdout) as LabResult;
    assertPassed(result);
    assert.equal(result.store?.kind, 'kube');
    assert.equal(result.store.endpoint, 'https://192.168.77.253:6443');
    assert.match(result.store.version ?? '', /^v1\.\d+\.\d+$/);
    assert.deepEqual(
      result.hosts.map((host) => host.subnet),
      ['10.244.0.0/24', '10.244.1.0/24'],
    );
    assert.deepEqual(
      result.leases?.map((lease) => lease.expiresAt),
      [null, null],
    );
    assert.deepEqual(await namespacesOfLab(result.id), []);
    assertGone(result.id, []);
  });

  it('can be taken down after it was killed, with all servers', async () => {
    const flags = ['--subnet-mgr', 'kube'];
    const id = await interruptedLab({ flags, after: 'subnet store', signal: 'SIGKILL', exitCode: undefined });
    const servers = ['etcd', 'kube-apiserver', 'kube-controller-manager', 'socat'].flatMap((name) => {
      const found = serversOf(id, name);
      assert.equal(found.length, 1, name);
      return found;
    });
    await run([...weft, 'lab', 'down', id]);
    assertGone(id, servers);
    assert.deepEqual(await namespacesOfLab(id), []);
  });

  it('says what is missing, and makes nothing', async () => {
    const cache = await mkdtemp(join(tmpdir(), 'weft-no-cache-'));
    try {
      const attempts: [string, RegExp][] = [
        ['etcd', /could not run etcd, etcdctl: there are no such programs .*apt-get install etcd-server etcd-client/],
        ['kube', /cannot build the Kubernetes v\S+ servers: Go is not installed .*Install Go/],
      ];
      for (const [kind, expected] of attempts) {
        const hidden = kind === 'etcd' ? 'etcd etcdctl' : 'go';
        const argv = ['unshare', '-m', 'sh', '-ec', WITHOUT, 'sh', hidden, ...weft, 'lab', '--subnet-mgr', kind];
        // The servers that were built before must not be found either.
        const env = { XDG_CACHE_HOME: cache, HOME: cache };
        const { stdout, stderr, exitCode } = await run(argv, { okExitCodes: 'any', env });
        assert.notEqual(exitCode, 0);
        assert.match(stderr, expected);
        assert.equal(stdout, '');
      }
    } finally {
      await rm(cache, { recursive: true, force: true });
    }
  });
});

/** In a mount namespace: takes programs out of where this system has them, then goes on as the command that follows. */
const WITHOUT = `
  layers=$(mktemp -d); mount -t tmpfs layers "$layers"
  for program in $1; do
    for dir in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /usr/local/go/bin; do
      [ -e "$dir/$program" ] || continue
      mkdir -p "$layers/$program$dir/upper" "$layers/$program$dir/work"
      mount -t overlay overlay -o "lowerdir=$dir,upperdir=$layers/$program$dir/upper,workdir=$layers/$program$dir/work" "$dir"
      rm "$dir/$program"
    done
  done
  shift
  exec "$@"
`;

/** Living processes on a lab's record whose program has that name. */
function serversOf(id: string, name: string): number[] {
  const processes = readRecord(id)?.processes ?? [];
  return processes.flatMap(({ argv, pid }) => {
    const isIt = argv[0]?.split('/').at(-1) === name;
    return isIt && pid !== undefined && identifyProcess(pid) !== undefined ? [pid] : [];
  });
}

function assertGone(id: string, pids: readonly number[]): void {
  for (const pid of pids) assert.equal(identifyProcess(pid), undefined);
  assert.equal(readRecord(id), undefined);
  assert.equal(existsSync(`/run/weft-lab/${id}`), false);
}
