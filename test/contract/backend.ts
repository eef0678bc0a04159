import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Backend, ExternalInterface, IdentityHost, PeerPart } from '../../src/backend/backend.ts';
import { isSkipped } from '../../src/backend/backend.ts';
import type { AnyBackendKind } from '../../src/backend/registry.ts';
import {
  backendKind,
  configuredBackend,
  identifyBackend,
  openBackend,
  publishedBackend,
} from '../../src/backend/registry.ts';
import { parseNetConf } from '../../src/config/net-conf.ts';
import { Actual } from '../../src/desired/actual.ts';
import { planAll } from '../../src/desired/plan/plan.ts';
import type { WantedState } from '../../src/desired/state.ts';
import { Wanted } from '../../src/desired/wanted.ts';
import { FAMILIES, type FamilyKey } from '../../src/ip/family.ts';
import { parseIpv4 } from '../../src/ip/ipv4.ts';
import { parseIpv6 } from '../../src/ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../../src/ip/prefix.ts';
import type { JsonValue, Lease } from '../../src/lease/lease.ts';
import { FAKE_IDENTITY_HOST, requiredKeys } from '../fakes/backends.ts';
import { addresses } from '../fakes/host-networks.ts';

export type Stack = 'ipv4' | 'ipv6' | 'dual';

const isOn = (stack: Stack, family: FamilyKey): boolean => stack === 'dual' || stack === family;

const EXTERNAL: ExternalInterface = {
  name: 'eth0',
  mtuBytes: 1500,
  addresses: addresses('192.168.77.1', 'fd77::1'),
  publicAddresses: addresses('192.168.77.1', 'fd77::1'),
  onLink: [parsePrefix4('192.168.77.0/24')!, parsePrefix6('fd77::/64')!],
};

const never = new AbortController().signal;

/** What the kernel shows to everybody. */
function withoutKeys({ links, ...state }: WantedState): object {
  const shown = links.map((link) =>
    link.kind === 'wireguard' ? { ...link, settings: { ...link.settings, privateKey: undefined } } : link,
  );
  return { ...state, links: shown };
}

/** What every backend must be, whatever it does with packets. */
export function testBackend(
  kind: AnyBackendKind,
  peerData: (family: FamilyKey, host: number) => JsonValue | undefined,
): void {
  const stacks: readonly Stack[] = kind.families.includes('ipv6') ? ['ipv4', 'ipv6', 'dual'] : ['ipv4'];

  describe(`backend ${kind.type}`, () => {
    it('is another host to its peers with another key in its file, if it says that it follows one', async () => {
      let text = '';
      const keyFile: IdentityHost['keyFile'] = async (fresh) => {
        text ||= fresh();
        return { path: 'key', text };
      };
      const attrs = async (byte: number) => {
        const randomBytes = (count: number) => new Uint8Array(count).fill(byte);
        return (await open('ipv4', { ...FAKE_IDENTITY_HOST, keyFile, randomBytes })).attrs;
      };
      const first = await attrs(1);
      if (text === '') return assert(!kind.followsIdentity);
      assert(kind.followsIdentity);
      assert.deepEqual(await attrs(2), first);
      text = '';
      assert.notDeepEqual(await attrs(2), first);
    });

    for (const stack of stacks) {
      describe(stack, () => {
        it('says the same when it is asked the same again', async () => {
          const [one, other] = [await open(stack), await open(stack)];
          assert.deepEqual(one.attrs, other.attrs);
          assert.deepEqual(one.host(lease(stack, 1)), other.host(lease(stack, 1)));
          assert.deepEqual(one.peer(lease(stack, 1), lease(stack, 2)), other.peer(lease(stack, 1), lease(stack, 2)));
        });

        it('is known by what it has published to whoever may ask for no key, no credentials and no program', async () => {
          const [own, first] = [lease(stack, 1), await open(stack)];
          const refuse = (): never => assert.fail('the host was asked');
          const host = { ...FAKE_IDENTITY_HOST, runCommand: refuse, variable: refuse, keyFile: refuse };
          const { network, past } = configured(stack);
          const published = { ...past, published: first.attrs.backendData };
          const setup = await publishedBackend(configuredBackend(network), network, published, host, never);
          const again = openBackend(setup, network, EXTERNAL);
          assert.deepEqual(again.attrs, first.attrs);
          assert.deepEqual(withoutKeys(again.host(own).kernel), withoutKeys(first.host(own).kernel));
        });

        it('has its name in leases, unless it says that it has none there', async () => {
          assert.equal((await open(stack)).attrs.backendType, kind.isUnnamed === true ? '' : kind.type);
        });

        it('makes the links that it says it owns, and no others', async () => {
          const owned = kind
            .owns(kind.parse({}), ['flannel0'])
            .filter(({ family }) => family === undefined || isOn(stack, family));
          const { links } = (await open(stack)).host(lease(stack, 1)).kernel;
          const made = links.filter((link) => link.kind !== 'external');
          const name = (link: { readonly kind: string; readonly name: string }) => `${link.kind} ${link.name}`;
          assert.deepEqual(made.map(name).sort(), owned.map(name).sort());
        });

        it('takes as much of the MTU as it says it puts before each packet', async () => {
          const overhead = kind.overheadBytes ?? { ipv4: 0, ipv6: 0 };
          // With udp both families of packets go between the hosts by IPv4, where the network has that.
          const isOver4 = kind.type === 'udp' && stack === 'dual';
          const outer = FAMILIES.filter(({ key }) => isOn(isOver4 ? 'ipv4' : stack, key));
          const most = Math.max(...outer.map(({ key }) => overhead[key]));
          assert.equal((await open(stack)).mtuBytes, EXTERNAL.mtuBytes - most);
        });

        it('wants nothing on links that it has not declared', async () => {
          const backend = await open(stack);
          const { kernel } = backend.host(lease(stack, 1));
          const declared = new Set(kernel.links.map(({ name }) => name));
          const part = backend.peer(lease(stack, 1), lease(stack, 2));
          assert(!isSkipped(part));
          const used = [
            ...[...kernel.routes, ...part.kernel.routes].flatMap((route) =>
              route.type === 'unicast' ? route.dev : [],
            ),
            ...[
              ...kernel.addresses,
              ...part.kernel.neighbours,
              ...part.kernel.fdb,
              ...(part.kernel.wireguard ?? []),
            ].map(({ link }) => link),
          ];
          for (const link of used) assert(declared.has(link), link);
        });

        it('wants nothing for a peer without a public address or a subnet, and says why', async () => {
          const backend = await open(stack);
          if (kind.ignoresPeers) return;
          const peer = lease(stack, 2);
          for (const unusable of [
            { ...peer, attrs: { ...peer.attrs, publicAddresses: { ipv4: undefined, ipv6: undefined } } },
            { ...peer, subnets: { ipv4: undefined, ipv6: undefined } },
          ]) {
            const part = backend.peer(lease(stack, 1), unusable);
            assert(isSkipped(part));
            assert.match(part.skipped, /^its? .{10,}/);
          }
        });

        it('gives each peer a part that no other peer’s overlaps', async () => {
          const backend = await open(stack);
          const wanted = Wanted.of(backend.host(lease(stack, 1)).kernel);
          for (let host = 2; host < 60; host++) wanted.setPeer(String(host), kernelPart(backend, stack, host));
          assert.deepEqual(
            [
              ...wanted.routes.losers(),
              ...wanted.neighbours.losers(),
              ...wanted.fdb.losers(),
              ...wanted.wireguard.losers(),
              ...wanted.policies.losers(),
            ],
            [],
          );
        });

        it('comes to the same by changes, one at a time, as all at once', async () => {
          const backend = await open(stack);
          const host = backend.host(lease(stack, 1)).kernel;
          const changes = fc.array(fc.record({ peer: fc.integer({ min: 2, max: 6 }), present: fc.boolean() }), {
            maxLength: 12,
          });
          fc.assert(
            fc.property(changes, (steps) => {
              const byChanges = Wanted.of(host);
              const present = new Set<number>();
              for (const step of steps) {
                if (step.present) present.add(step.peer);
                else present.delete(step.peer);
                byChanges.setPeer(String(step.peer), step.present ? kernelPart(backend, stack, step.peer) : undefined);
              }
              const atOnce = Wanted.of(host);
              for (const peer of present) atOnce.setPeer(String(peer), kernelPart(backend, stack, peer));
              assert.deepEqual(plannedOps(byChanges, host), plannedOps(atOnce, host));
            }),
            { numRuns: 50 },
          );
        });
      });
    }

    function configured(stack: Stack) {
      const text = JSON.stringify({
        ...(stack === 'ipv6' ? {} : { Network: '10.244.0.0/16' }),
        EnableIPv4: stack !== 'ipv6',
        ...(stack === 'ipv4' ? {} : { EnableIPv6: true, IPv6Network: 'fd10::/48' }),
        Backend: { Type: kind.type, ...requiredKeys(kind.type) },
      });
      const network = parseNetConf(text, { source: 'test', validation: 'kube', backends: backendKind });
      const past = { published: { ipv4: undefined, ipv6: undefined }, networks: [] };
      return { network, past };
    }

    async function open(stack: Stack, host = FAKE_IDENTITY_HOST): Promise<Backend> {
      const { network, past } = configured(stack);
      return openBackend(
        await identifyBackend(configuredBackend(network), network, past, host, never),
        network,
        EXTERNAL,
      );
    }

    function lease(stack: Stack, host: number): Lease {
      const v4 = stack !== 'ipv6';
      const v6 = stack !== 'ipv4';
      const type = kind.type === 'udp' || kind.ignoresPeers ? '' : kind.type;
      return {
        subnets: {
          ipv4: v4 ? parsePrefix4(`10.244.${host}.0/24`) : undefined,
          ipv6: v6 ? parsePrefix6(`fd10:0:0:${host.toString(16)}::/64`) : undefined,
        },
        attrs: {
          publicAddresses: {
            ipv4: parseIpv4(`192.168.77.${host}`),
            ipv6: v6 ? parseIpv6(`fd77::${host.toString(16)}`) : undefined,
          },
          backendType: type,
          backendData: { ipv4: v4 ? peerData('ipv4', host) : undefined, ipv6: v6 ? peerData('ipv6', host) : undefined },
        },
        expiresAtMs: undefined,
      };
    }

    function kernelPart(backend: Backend, stack: Stack, host: number): PeerPart['kernel'] {
      const part = backend.peer(lease(stack, 1), lease(stack, host));
      assert(!isSkipped(part));
      return part.kernel;
    }
  });
}

/** What would be done in a kernel where every link is there already, in an order that does not matter. */
function plannedOps(wanted: Wanted, { links }: WantedState): unknown {
  const present = links.map((link) => ({
    name: link.name,
    kind: 'other' as const,
    settings: undefined,
    mtuBytes: 1500,
    up: true,
    mac: undefined,
    alias: undefined,
    queuePackets: 1000,
  }));
  const bare = new Actual({
    links: present.filter(({ name }) => name === 'eth0'),
    addresses: [],
    routes: [],
    neighbours: [],
    fdb: [],
    sysctls: [],
  });
  return planAll(wanted, bare)
    .ops.map((op) => JSON.stringify(op, (_, value) => (typeof value === 'bigint' ? String(value) : value)))
    .sort();
}
