import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parsePrefix4, parsePrefix6 } from '../../src/ip/prefix.ts';
import { IptablesTrafficManager } from '../../src/linux/iptables.ts';
import { NftablesTrafficManager } from '../../src/linux/nftables.ts';
import { run } from '../../src/linux/run.ts';
import { type TrafficRules, trafficRules } from '../../src/trafficmngr/rules.ts';
import { byTable, golden, goldenOrEmpty, normalRuleset, normalSave, withNftCorrections } from '../fakes/golden.ts';
import { withNamespace } from './traffic-namespace.ts';

/** What a real flanneld left on a host, against what ours leaves there when it is given the same subnet. */

function goldenRules(scenario: string, host: string): TrafficRules {
  const env = golden(scenario, `24-subnet.env-${host}`);
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(env)?.[1] ?? '';
  const network = parsePrefix4(value('FLANNEL_NETWORK'));
  const subnet = parsePrefix4(value('FLANNEL_SUBNET'));
  assert.ok(network !== undefined && subnet !== undefined);
  const network6 = parsePrefix6(value('FLANNEL_IPV6_NETWORK'));
  const subnet6 = parsePrefix6(value('FLANNEL_IPV6_SUBNET'));
  return trafficRules({
    ipv4: { network, subnet },
    ipv6: network6 && subnet6 && { network: network6, subnet: subnet6 },
    ipMasq: value('FLANNEL_IPMASQ') === 'true',
    randomFully: true,
    forwardRules: true,
  });
}

describe('traffic rules equal flanneld’s', () => {
  for (const scenario of ['udp', 'etcd-udp', 'vxlan-dual']) {
    for (const host of ['h1', 'h2']) {
      it(`iptables-save and nft list ruleset, scenario ${scenario}, ${host}`, async () => {
        await using namespace = await withNamespace();
        const netns = namespace.name;
        await new IptablesTrafficManager({ netns }).ensure(goldenRules(scenario, host));
        const saved = (await run(['iptables-save'], { netns })).stdout;
        assert.deepEqual(byTable(normalSave(saved)), byTable(normalSave(golden(scenario, `21-iptables-save-${host}`))));
        const saved6 = (await run(['ip6tables-save'], { netns })).stdout;
        const golden6 = goldenOrEmpty(scenario, `22-ip6tables-save-${host}`);
        assert.deepEqual(byTable(normalSave(saved6)), byTable(normalSave(golden6)));
        const listed = (await run(['nft', '-a', 'list', 'ruleset'], { netns })).stdout;
        assert.deepEqual(byTable(normalRuleset(listed)), byTable(normalRuleset(golden(scenario, `23-nft-${host}`))));
      });
    }
  }

  for (const host of ['h1', 'h2']) {
    it(`nft list ruleset, scenario udp-nft, ${host}: but for two rules`, async () => {
      await using namespace = await withNamespace();
      const netns = namespace.name;
      await new NftablesTrafficManager({ netns }).ensure(goldenRules('udp-nft', host));
      const listed = (await run(['nft', '-a', 'list', 'ruleset'], { netns })).stdout;
      const subnet = host === 'h1' ? '10.244.0.0/24' : '10.244.1.0/24';
      assert.deepEqual(
        byTable(normalRuleset(listed)),
        byTable(withNftCorrections(normalRuleset(golden('udp-nft', `23-nft-${host}`)), subnet)),
      );
      assert.equal((await run(['iptables-save'], { netns })).stdout, golden('udp-nft', `21-iptables-save-${host}`));
    });
  }

  it('takes over the rules that flanneld left, without changing any', async () => {
    await using namespace = await withNamespace();
    const netns = namespace.name;
    await run(['iptables-restore'], { netns, stdin: golden('udp', '21-iptables-save-h1-after-sigterm') });
    assert.deepEqual(await new IptablesTrafficManager({ netns }).ensure(goldenRules('udp', 'h1')), []);
  });

  it('takes over the nftables rules that flanneld left, and says which two it corrects', async () => {
    await using namespace = await withNamespace();
    const netns = namespace.name;
    await run(['nft', '-f', '-'], { netns, stdin: golden('udp-nft', '23-nft-h1-after-sigterm') });
    const repairs = await new NftablesTrafficManager({ netns }).ensure(goldenRules('udp-nft', 'h1'));
    assert.deepEqual(
      repairs.map(({ problem, where, rule }) => `${problem} ${where}: ${rule}`),
      [
        'missing ip flannel-ipv4 postrtg: meta mark & 0x00004000 == 0x00004000 return',
        'missing ip flannel-ipv4 postrtg: ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/24 return',
        'unexpected ip flannel-ipv4 postrtg: meta mark & 0xffffffff == 0x00004000 return',
        'unexpected ip flannel-ipv4 postrtg: ip saddr != 10.244.0.0/24 ip daddr 10.244.0.0/16 return',
      ],
    );
  });

  it('removes the other manager’s rules as flanneld made them', async () => {
    await using namespace = await withNamespace();
    const netns = namespace.name;
    await run(['iptables-restore'], { netns, stdin: golden('udp', '21-iptables-save-h1-after-sigterm') });
    const { removed } = await new IptablesTrafficManager({ netns }).remove();
    // Both jumps, both chains and their eight rules.
    assert.equal(removed.length, 12);
    assert.doesNotMatch((await run(['iptables-save'], { netns })).stdout, /flannel/i);

    await run(['nft', '-f', '-'], { netns, stdin: golden('udp-nft', '23-nft-h1-after-sigterm') });
    await new NftablesTrafficManager({ netns }).remove();
    assert.doesNotMatch((await run(['nft', 'list', 'ruleset'], { netns })).stdout, /flannel/i);
  });
});
