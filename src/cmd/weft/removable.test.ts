import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { v4 } from '../../../test/contract/traffic-manager.ts';
import { FakeKernel } from '../../../test/fakes/fake-kernel.ts';
import { FakeTrafficManager } from '../../../test/fakes/fake-traffic-manager.ts';
import type { OwnLink } from '../../desired/state.ts';
import { type ActualRoute, WEFT_ROUTE_PROTOCOL } from '../../desired/state.ts';
import { parsePrefix } from '../../ip/address.ts';
import { trafficRules } from '../../trafficmngr/rules.ts';
import {
  type CleanupStep,
  cleanUp,
  type Removable,
  removableFiles,
  removableLinks,
  removableRoutes,
  removableRules,
} from './removable.ts';

const never = new AbortController().signal;
const LINKS: readonly OwnLink[] = [{ name: 'flannel0', kind: 'tun' }];

async function steps(removables: readonly Removable[], dryRun = false): Promise<CleanupStep[]> {
  const found: CleanupStep[] = [];
  for await (const step of cleanUp(removables, { dryRun }, never)) found.push(step);
  return found;
}

function route(dst: string, over: Partial<ActualRoute> = {}): ActualRoute {
  return {
    type: 'unicast',
    dst: parsePrefix(dst) ?? assert.fail(dst),
    metric: dst.includes(':') ? 1024 : 0,
    dev: 'eth0',
    via: undefined,
    onlink: false,
    scope: 'global',
    protocol: WEFT_ROUTE_PROTOCOL,
    elaborate: false,
    ...over,
  };
}

function usedKernel(): FakeKernel {
  const kernel = new FakeKernel();
  kernel.addLink({ name: 'eth0', kind: 'other' });
  kernel.addLink({ name: 'flannel0', kind: 'tun' });
  kernel.addForeignRoute(route('10.244.0.0/16', { dev: 'flannel0' }));
  kernel.addForeignRoute(route('10.244.7.0/24', { type: 'blackhole', dev: undefined, metric: 10_000 }));
  kernel.addForeignRoute(route('fd00:10:244::/48'));
  kernel.addForeignRoute(route('10.9.0.0/16', { protocol: 3 }));
  return kernel;
}

describe('cleaning up the kernel', () => {
  it('removes routes by their protocol number, and links by name and kind', async () => {
    const kernel = usedKernel();
    assert.deepEqual(await steps([removableRoutes(kernel), removableLinks(kernel, LINKS)]), [
      {
        what: 'routes',
        lines: [
          '10.244.0.0/16 dev flannel0',
          'blackhole 10.244.7.0/24 metric 10000',
          'fd00:10:244::/48 dev eth0 metric 1024',
        ],
        failure: undefined,
      },
      { what: 'devices', lines: ['flannel0'], failure: undefined },
    ]);
    assert.deepEqual([...kernel.links.keys()], ['eth0']);
    assert.deepEqual(
      kernel.routes.map(({ protocol }) => protocol),
      [3],
    );
  });

  it('leaves a link alone that only has the name', async () => {
    const kernel = new FakeKernel();
    kernel.addLink({ name: 'flannel0', kind: 'bridge' });
    assert.deepEqual(await steps([removableLinks(kernel, LINKS)]), [
      { what: 'devices', lines: [], failure: undefined },
    ]);
    assert.ok(kernel.links.has('flannel0'));
  });

  it('only says it in a dry run', async () => {
    const kernel = usedKernel();
    const [routes, links] = await steps([removableRoutes(kernel), removableLinks(kernel, LINKS)], true);
    assert.equal(routes?.lines.length, 3);
    assert.deepEqual(links?.lines, ['flannel0']);
    assert.deepEqual(kernel.applied, []);
  });

  it('says which route would not go, and that the others went', async () => {
    const kernel = usedKernel();
    kernel.refuse = (op) => (op.type === 'route-delete' && op.route.type === 'blackhole' ? 'Not so' : undefined);
    const [step] = await steps([removableRoutes(kernel)]);
    assert.deepEqual(step?.lines, ['10.244.0.0/16 dev flannel0', 'fd00:10:244::/48 dev eth0 metric 1024']);
    assert.match(step?.failure ?? '', /delete route blackhole 10\.244\.7\.0\/24 metric 10000: Not so/);
  });
});

describe('cleaning up rules', () => {
  it('removes what the manager has', async () => {
    const manager = new FakeTrafficManager();
    const ipv4 = { network: v4('10.244.0.0/16'), subnet: v4('10.244.1.0/24') };
    await manager.ensure(trafficRules({ ipv4, ipv6: undefined, ipMasq: true, randomFully: true, forwardRules: true }));
    const rules = await manager.read();
    assert.notEqual(rules.length, 0);
    const removable = removableRules('rules', manager);
    assert.deepEqual(await steps([removable], true), [{ what: 'rules', lines: rules, failure: undefined }]);
    assert.deepEqual(await steps([removable]), [{ what: 'rules', lines: rules, failure: undefined }]);
    assert.deepEqual(await manager.read(), []);
  });
});

describe('cleaning up files', () => {
  it('removes the file and what killed writers left, and nothing else of the folder', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weft-cleanup-'));
    try {
      const names = ['subnet.env', '.subnet.env.123', '.subnet.env.bak', 'subnet.env.old', '.other.7'];
      for (const name of names) await writeFile(join(folder, name), '');
      const removable = removableFiles('files', [join(folder, 'subnet.env'), join(folder, 'missing', 'last-error')]);
      const [step] = await steps([removable]);
      assert.equal(step?.failure, undefined);
      assert.deepEqual(step?.lines.toSorted(), [join(folder, '.subnet.env.123'), join(folder, 'subnet.env')]);
      assert.deepEqual((await readdir(folder)).toSorted(), ['.other.7', '.subnet.env.bak', 'subnet.env.old']);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('asks the content where the name does not tell', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weft-cleanup-'));
    try {
      const [ours, others] = [join(folder, 'a.conflist'), join(folder, 'b.conflist')];
      await writeFile(ours, '{"weft": 1}');
      await writeFile(others, '{}');
      const [step] = await steps([removableFiles('files', [ours, others], (content) => content.includes('weft'))]);
      assert.deepEqual([step?.lines, step?.failure], [[ours], undefined]);
      assert.deepEqual(await readdir(folder), ['b.conflist']);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('says what it could not remove', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weft-cleanup-'));
    try {
      await mkdir(join(folder, 'subnet.env'));
      const [step] = await steps([removableFiles('files', [join(folder, 'subnet.env')])]);
      assert.deepEqual(step?.lines, []);
      assert.match(step?.failure ?? '', /subnet\.env/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('cleaning up', () => {
  const failing: Removable = {
    what: 'stones',
    find: () => Promise.reject(new Error('it is dark')),
    remove: () => assert.fail('nothing was found'),
  };

  it('goes on after a step that failed', async () => {
    const kernel = usedKernel();
    assert.deepEqual(
      (await steps([failing, removableLinks(kernel, LINKS)])).map(({ what, failure }) => [what, failure]),
      [
        ['stones', 'it is dark'],
        ['devices', undefined],
      ],
    );
  });

  it('takes what is gone for removed, whoever removed it', async () => {
    let there = ['a', 'b'];
    const contested: Removable = {
      what: 'things',
      find: async () => there,
      remove: async () => {
        there = [];
        throw new Error('no such thing');
      },
    };
    assert.deepEqual(await steps([contested]), [{ what: 'things', lines: ['a', 'b'], failure: undefined }]);
  });

  it('does not believe a removal that changed nothing', async () => {
    const stubborn: Removable = { what: 'things', find: async () => ['a', 'b'], remove: async () => {} };
    assert.deepEqual(await steps([stubborn]), [{ what: 'things', lines: [], failure: 'still there: a; b' }]);
  });

  it('has nothing to say of a host with nothing', async () => {
    const kernel = new FakeKernel();
    const all = [
      removableRoutes(kernel),
      removableLinks(kernel, LINKS),
      removableRules('rules', new FakeTrafficManager()),
    ];
    for (const step of await steps(all)) assert.deepEqual([step.lines, step.failure], [[], undefined]);
  });

  it('stops when told to', async () => {
    const abort = new AbortController();
    const stopping: Removable = {
      what: 'things',
      find: async () => {
        abort.abort(new Error('enough'));
        return ['a'];
      },
      remove: () => assert.fail('it was told to stop'),
    };
    await assert.rejects(cleanUp([stopping], { dryRun: false }, abort.signal).next(), /enough/);
  });
});
