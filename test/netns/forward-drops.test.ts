import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually, eventuallyHolds } from './waiting.ts';

const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));
const NET_CONF = '{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "udp"}}';

interface DoctorAnswer {
  readonly checks: readonly {
    readonly name: string;
    readonly status: string;
    readonly found: string;
    readonly remedy?: string;
  }[];
}

describe('a firewall of somebody else’s that drops what is forwarded, beside an agent in nftables mode', () => {
  const { signal } = new AbortController();
  let overlay: Overlay;
  let topology: Topology;
  let host: LabHost;
  before(async () => {
    const agentFlags = ['--iptables-resync=1'];
    overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, netConf: NET_CONF, agentFlags }, signal);
    ({ topology } = overlay);
    host = topology.hosts[0]!;
  });
  after(() => topology?.[Symbol.asyncDispose]());

  const reaches = async (): Promise<boolean> => {
    const [from, to] = [host.containers[0]!, topology.hosts[1]!.containers[0]!];
    return (await ping(topology, from, addressOf(to), '-W', '1')).ok;
  };
  const examine = async (): Promise<DoctorAnswer['checks'][number]> => {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', WEFT, 'doctor', '--json'];
    const files = ['--subnet-file', `${host.stateDirectory}/subnet.env`];
    const { stdout } = await topology.exec(host, [...argv, ...files], { okExitCodes: 'any' });
    const answer = JSON.parse(stdout) as DoctorAnswer;
    return answer.checks.find(({ name }) => name === 'forward-drops') ?? assert.fail(stdout);
  };
  // A doctor that gets little of a busy machine gives up; then it is asked again.
  const isFoundWell = (): Promise<void> =>
    eventuallyHolds(async () => {
      const { status, found } = await examine();
      assert.equal(status, 'ok', found);
    });
  /** The check fails with that; its remedy. */
  const isFound = (what: RegExp): Promise<string> =>
    eventuallyHolds(async () => {
      const { status, found, remedy = '' } = await examine();
      assert.equal(status, 'fail');
      assert.match(found, what);
      return remedy;
    });
  /** Commands that end with ` accept` or ` ACCEPT`, as the remedy has them. */
  const commandsOf = (text: string): string[] =>
    Array.from(text.matchAll(/(?:iptables|nft) [^;.]*?(?:\d+\.[^;]*?)accept/gi), ([command]) => command!);

  for (const [what, commands] of [
    ['iptables with FORWARD DROP, as Docker sets it', ['iptables -P FORWARD DROP']],
    [
      'a ruleset of the host',
      [
        'nft add table inet guard',
        'nft add chain inet guard forward { type filter hook forward priority 0; policy drop; }',
        'nft add rule inet guard forward ct state established accept',
      ],
    ],
  ] as const) {
    it(`${what}: agent and doctor say so, and the remedy that they give helps`, async () => {
      await eventually('pings pass', async () => (await reaches()) || undefined);
      await isFoundWell();
      for (const command of commands) await topology.exec(host, ['sh', '-c', command.replace(/\{.*\}/, "'$&'")]);
      assert.equal(await reaches(), false);
      const remedy = await isFound(
        /another firewall on this host drops packets of containers, chain (FORWARD of table ip filter|forward of table inet guard)/,
      );
      const helps = commandsOf(remedy);
      assert.equal(helps.length, 2, remedy);
      await eventually('the agent says so', async () => (await overlay.log(host)).includes(remedy) || undefined);
      for (const command of helps) await topology.exec(host, ['sh', '-c', command]);
      await eventually('pings pass', async () => (await reaches()) || undefined);
      await isFoundWell();
    });
  }

  for (const [program, chain] of [
    ['iptables', 'chain PREROUTING of table ip raw'],
    ['iptables-legacy', 'chain PREROUTING of table raw of iptables-legacy'],
  ] as const) {
    it(`what Docker 28 does with ${program} about the address of a container: agent and doctor say so, until it is gone`, async () => {
      const rule = ['PREROUTING', '-d', addressOf(host.containers[0]!), '!', '-i', 'cni0', '-j', 'DROP'];
      await isFoundWell();
      const { length } = await overlay.log(host);
      const says = (words: string): Promise<true> =>
        eventually(
          `the agent says ${words}`,
          async () => (await overlay.log(host)).slice(length).includes(words) || undefined,
        );
      await topology.exec(host, [program, '-t', 'raw', '-A', ...rule]);
      assert.equal(await reaches(), false);
      const what = `${chain}: it drops packets to ${addressOf(host.containers[0]!)}/32`;
      const remedy = await isFound(new RegExp(what.replaceAll('.', '\\.')));
      assert.match(remedy, /--allow-direct-routing/);
      await says(`${what} that come from other devices. ${remedy}`);
      await topology.exec(host, [program, '-t', 'raw', '-D', ...rule]);
      await says(`${chain} no longer drops packets of containers`);
      await eventually('pings pass', async () => (await reaches()) || undefined);
      await isFoundWell();
    });
  }
});
