import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FAKE_IDENTITY_HOST } from '../../test/fakes/backends.ts';
import { FakeKernel } from '../../test/fakes/fake-kernel.ts';
import { FakeTrafficManager } from '../../test/fakes/fake-traffic-manager.ts';
import type { ExternalInterface } from '../backend/backend.ts';
import { backendKind, configuredBackend, identifyBackend } from '../backend/registry.ts';
import { parseFlanneldOptions } from '../config/flanneld-options.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { PeerSlots } from '../dataplane/peer-slots.ts';
import { perFamily } from '../ip/family.ts';
import { ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4, prefix4 } from '../ip/prefix.ts';
import { type Lease, type LeaseEvent, type LeaseKey, leaseKey } from '../lease/lease.ts';
import { createLog } from '../log/log.ts';
import { NodePlane, type NodePlaneParts } from './node-plane.ts';

const { signal } = new AbortController();
const EXTERNAL: ExternalInterface = {
  ...{ name: 'eth0', mtuBytes: 1500, onLink: [parsePrefix4('192.168.77.0/24')!] },
  addresses: { ipv4: parseIpv4('192.168.77.1')!, ipv6: undefined },
  publicAddresses: { ipv4: parseIpv4('192.168.77.1')!, ipv6: undefined },
};

/** Of the host with that number, which uses vxlan with that device, host-gw, or has nothing that vxlan can use. */
function leaseOf(host: number, { mac = 0, type = 'vxlan' }: { mac?: number; type?: string } = {}): Lease {
  const data = { VNI: 1, VtepMAC: `02:00:00:00:0${mac}:${host.toString(16).padStart(2, '0')}` };
  return {
    subnets: { ipv4: prefix4(ipv4Of(0x0af40000 + host * 256), 24), ipv6: undefined },
    attrs: {
      publicAddresses: { ipv4: ipv4Of(0xc0a84d00 + host), ipv6: undefined },
      backendType: type,
      backendData: { ipv4: type === 'vxlan' ? data : undefined, ipv6: undefined },
    },
    expiresAtMs: undefined,
  };
}

const OWN = leaseOf(1);

interface Stage {
  readonly plane: NodePlane;
  readonly kernel: FakeKernel;
  /** Of which peers the probes were told, in order. */
  readonly told: string[];
  readonly lines: string[];
}

const IPIP = {
  kind: 'ipip',
  name: 'flannel.ipip',
  mtuBytes: 1480,
  settings: { local: EXTERNAL.addresses.ipv4! },
} as const;

function hostKernel(): FakeKernel {
  const kernel = new FakeKernel();
  kernel.addLink({ name: 'eth0', kind: 'other', up: true });
  return kernel;
}

/** A node with the backend vxlan on fakes, which can reach peers with host-gw beside it. */
async function stageOf({
  kernel = hostKernel(),
  formerLinks = [],
}: {
  kernel?: FakeKernel;
  formerLinks?: NodePlaneParts['formerLinks'];
} = {}): Promise<Stage> {
  const config = parseNetConf('{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}', {
    ...{ source: 'test', validation: 'full', backends: backendKind },
  });
  const parsed = parseFlanneldOptions(['--subnet-file=/nowhere/subnet.env'], {});
  assert.ok(parsed.kind === 'run');
  const past = { published: perFamily(() => undefined), networks: [] };
  const identify: NodePlaneParts['others']['identify'] = (configured, signal) =>
    identifyBackend(configured, config, past, FAKE_IDENTITY_HOST, signal);
  const beside = parseNetConf('{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}', {
    ...{ source: 'test', validation: 'full', backends: backendKind },
  });
  const [told, lines]: [string[], string[]] = [[], []];
  const unused = (): never => assert.fail('of no use here');
  const plane = new NodePlane({
    host: {
      ...{ kernel: () => kernel, forwarder: unused, ikeDaemon: unused, setCloudRoute: unused },
      endFastPath: () => undefined,
      trafficManager: () => new FakeTrafficManager(),
      firewall: async () => ({ nft: [], legacy: { ipv4: undefined, ipv6: undefined } }),
      readText: async () => undefined,
      probeChecksum: async () => undefined,
      outerFilters: { replace: async () => {}, change: async () => {}, names: async () => [], remove: async () => {} },
    },
    ...{ options: parsed.options, config, setup: await identify(configuredBackend(config), signal) },
    ...{ formerLinks, formerRoutes: [], formerNetworks: [], networksBeside: [], runCommand: unused, tuns: [] },
    external: EXTERNAL,
    others: { candidates: new Map([['host-gw', configuredBackend(beside)]]), identify },
    slots: new PeerSlots(100),
    probes: { setPeer: (key) => void told.push(key) },
    ...{ onForwarderEvent: () => {}, onFastPath: () => {}, onFatal: unused, record: () => {} },
    log: createLog({ format: 'text', verbosity: 0, write: (line) => lines.push(line) }),
  });
  return { plane, kernel, told, lines };
}

/** What is in the kernel, and what is said of the peers, whatever the order in which it came there. */
async function stateOf({ plane, kernel }: Stage): Promise<unknown> {
  await plane.reconciler.idle();
  const sorted = (items: readonly unknown[]): string[] =>
    items.map((item) => JSON.stringify(item, (_, value) => (typeof value === 'bigint' ? `${value}` : value))).sort();
  return {
    routes: sorted(kernel.routes),
    neighbours: sorted(kernel.neighbours),
    fdb: sorted(kernel.fdb),
    links: [...kernel.links.keys()].sort(),
    ways: sorted([...plane.ways]),
    skipped: plane.skipped.count,
  };
}

describe('the plane of a node', () => {
  it('told what has changed is where it would be told everything, whatever comes and goes', async () => {
    const type = fc.constantFrom('vxlan', 'vxlan', 'host-gw', 'unheard-of');
    const change = fc.record({ host: fc.integer({ min: 2, max: 6 }), mac: fc.nat(1), type, gone: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(change, { maxLength: 3 }), { maxLength: 6 }), async (steps) => {
        const [following, anew] = [await stageOf(), await stageOf()];
        await using _following = following.plane;
        await using _anew = anew.plane;
        const peers = new Map<LeaseKey, Lease>();
        following.plane.program(OWN, []);
        anew.plane.update(OWN, []);
        for (const step of steps) {
          const events = step.map(({ host, gone, ...what }): LeaseEvent => {
            const lease = leaseOf(host, what);
            const before = peers.get(leaseKey(lease));
            if (gone) peers.delete(leaseKey(lease));
            else peers.set(leaseKey(lease), lease);
            return gone ? { type: 'removed', lease } : { type: 'set', lease, before };
          });
          following.plane.update(OWN, events);
          anew.plane.program(OWN, [...peers.values()]);
        }
        anew.plane.program(OWN, [...peers.values()]);
        // A side for another backend opens in a moment.
        for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
        assert.deepEqual(await stateOf(following), await stateOf(anew));
      }),
      { numRuns: 60 },
    );
  });

  it('deals with the peer that has changed, and with no other', async () => {
    const stage = await stageOf();
    await using plane = stage.plane;
    const peers = Array.from({ length: 60 }, (_, index) => leaseOf(index + 2));
    plane.program(OWN, peers);
    await plane.reconciler.idle();
    assert.equal(stage.told.splice(0).length, 60);
    const applied = stage.kernel.applied.length;
    plane.update(OWN, [{ type: 'set', lease: leaseOf(7, { mac: 1 }), before: leaseOf(7) }]);
    await plane.reconciler.idle();
    assert.deepEqual(stage.told, [leaseKey(leaseOf(7))]);
    const made = stage.kernel.applied.length - applied;
    assert.ok(made > 0 && made <= 3, `${made} operations`);
  });

  it('leaves what an earlier agent has made for peers as it is until the store has listed them', async () => {
    const before = await stageOf();
    before.plane.program(OWN, [leaseOf(2), leaseOf(3)]);
    await before.plane.reconciler.idle();
    await before.plane[Symbol.asyncDispose]();
    const { kernel } = before;
    kernel.byHand({ type: 'link-add', link: IPIP });
    const { plane: next } = await stageOf({ kernel, formerLinks: [IPIP] });
    await using plane = next;
    const entries = () => [kernel.routes, kernel.neighbours, kernel.fdb].map(({ length }) => length);
    plane.program(OWN, []);
    await plane.reconciler.idle();
    assert.deepEqual(entries(), [2, 2, 2], 'nobody knows the peers yet');
    assert.ok(kernel.links.has(IPIP.name));
    plane.update(OWN, [{ type: 'set', lease: leaseOf(3), before: undefined }]);
    await plane.reconciler.idle();
    assert.deepEqual(entries(), [1, 1, 1], 'one has gone');
    assert.ok(!kernel.links.has(IPIP.name));
  });

  it('makes up for what could not be programmed when it is told of the next change', async () => {
    const stage = await stageOf();
    await using plane = stage.plane;
    plane.program(OWN, [leaseOf(2)]);
    let reads = 0;
    // The second time somebody reads it is when the backend does.
    const broken = Object.defineProperty({ ...OWN }, 'subnets', {
      get: () => (++reads === 2 ? assert.fail('broken for once') : OWN.subnets),
    });
    plane.update(broken, [{ type: 'set', lease: leaseOf(3), before: undefined }]);
    assert.match(stage.lines.join('\n'), /Could not program 10\.244\.1\.0-24: broken for once/);
    plane.update(OWN, [{ type: 'set', lease: leaseOf(4), before: undefined }]);
    await plane.reconciler.idle();
    assert.equal(stage.kernel.fdb.length, 3);
  });
});
