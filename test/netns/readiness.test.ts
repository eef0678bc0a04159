import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { HOST_DEVICE, UNDERLAY_GATEWAY } from '../../src/lab/namespaces.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { Flanneld, HEALTHZ_PORT, localFlags } from './flanneld.ts';
import { NET_CONF } from './overlay.ts';

/** Ready means that packets flow: whatever part of their way is not there, /readyz, metrics and doctor say so. */

const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));
const NETWORK = '10.244.0.0/16';

let topology: Topology;
let host: LabHost;
before(async () => {
  topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
  host = topology.hosts[0]!;
  mkdirSync(join(host.stateDirectory, 'bin'), { recursive: true });
});
after(() => topology?.[Symbol.asyncDispose]());

function startAgent(env: Record<string, string> = {}, ...more: readonly string[]): Promise<Flanneld> {
  const own = ['--ip-masq', '--iptables-resync=1', `--healthz-port=${HEALTHZ_PORT}`, ...more];
  const flags = localFlags(host, NET_CONF, ...own);
  return Flanneld.start(topology, host, { flags, env });
}

const ip = (...args: string[]): Promise<unknown> => topology.exec(host, ['ip', ...args]);

/** Programs of these names refuse what `arguments_` fits (a pattern of sh), for as long as a file is there. */
class Refusal implements Disposable {
  readonly env: Record<string, string>;
  readonly #flag = join(host.stateDirectory, 'refuse');

  constructor(programs: readonly string[], arguments_: string) {
    const directory = join(host.stateDirectory, 'bin');
    for (const program of programs) {
      const path = join(directory, program);
      const script = `#!/bin/sh
if [ -e ${this.#flag} ]; then case "$*" in ${arguments_}) echo "refused as ordered" >&2; exit 2;; esac; fi
exec "$(PATH=/usr/sbin:/usr/bin:/sbin:/bin; command -v ${program})" "$@"
`;
      writeFileSync(path, script);
      chmodSync(path, 0o755);
    }
    this.env = { PATH: `${directory}:${process.env.PATH}` };
  }

  begin(): void {
    writeFileSync(this.#flag, '');
  }

  end(): void {
    rmSync(this.#flag, { force: true });
  }

  [Symbol.dispose](): void {
    this.end();
    rmSync(join(host.stateDirectory, 'bin'), { recursive: true, force: true });
    mkdirSync(join(host.stateDirectory, 'bin'));
  }
}

async function expectFailure(agent: Flanneld, part: string, words: RegExp): Promise<void> {
  const { body } = await agent.answers('/readyz', 503, words);
  const metrics = (await agent.get('/metrics')).body;
  assert.match(metrics, new RegExp(`^weft_failure\\{part="${part}"\\} 1$`, 'm'), body);
  assert.match(metrics, /^weft_ready 0$/m);
  const doctor = await topology.exec(
    host,
    [
      ...[process.execPath, '--disable-warning=ExperimentalWarning', WEFT, 'doctor', '--json'],
      `--healthz-port=${HEALTHZ_PORT}`,
    ],
    { okExitCodes: 'any' },
  );
  const { checks } = JSON.parse(doctor.stdout) as { checks: { name: string; status: string; found: string }[] };
  const health = checks.find(({ name }) => name === 'health');
  assert.equal(health?.status, 'fail');
  assert.match(health?.found ?? '', words);
}

async function expectReady(agent: Flanneld): Promise<void> {
  await agent.answers('/readyz', 200, /ready/);
  const metrics = (await agent.get('/metrics')).body;
  assert.doesNotMatch(metrics, /^weft_failure\{.*\} 1$/m);
  assert.match(metrics, /^weft_kernel_converged 1$/m);
}

describe('an agent whose packets have no way', () => {
  it('is not ready while another interface has the route, leaves that alone, and is ready once it is gone', async () => {
    await ip('link', 'add', 'other0', 'type', 'veth', 'peer', 'name', 'other1');
    await ip('link', 'set', 'other1', 'up');
    await ip('link', 'set', 'other0', 'up');
    await ip('address', 'add', '10.244.77.1/16', 'dev', 'other0');
    await using agent = await startAgent();
    const words =
      /10\.244\.0\.0\/16 is already routed by another program .*; other0 has an address in that subnet: choose another Network .*its route must stay/;
    await expectFailure(agent, 'kernel', words);
    assert.match((await agent.get('/metrics')).body, /^weft_kernel_converged 0$/m);
    assert.doesNotMatch(agent.messages.join('\n'), /route delete|Wrote subnet file|flannel is ready/);
    const { stdout } = await topology.exec(host, ['ip', 'route', 'show', NETWORK]);
    assert.match(stdout, /^10\.244\.0\.0\/16 dev other0 proto kernel/);
    await ip('link', 'delete', 'other0');
    await expectReady(agent);
    await agent.logged(/flannel is ready/);
  });

  it('is not ready while its external interface is down, although that keeps its address', async () => {
    await using agent = await startAgent({}, `--iface=${HOST_DEVICE}`);
    await expectReady(agent);
    await ip('link', 'set', HOST_DEVICE, 'down');
    await expectFailure(agent, 'interface', new RegExp(`${HOST_DEVICE} is down`));
    await ip('link', 'set', HOST_DEVICE, 'up');
    await expectReady(agent);
    // It went with the link, and other agents find the interface by it.
    await ip('route', 'add', 'default', 'via', formatIpv4(UNDERLAY_GATEWAY), 'dev', HOST_DEVICE);
  });

  // It still answers what it is asked.
  it('is not ready while ip refuses whatever it is told, and is once it does not', async () => {
    // Nothing of the agent before.
    await topology.exec(host, ['ip', 'link', 'delete', 'flannel0'], { okExitCodes: 'any' });
    using refusal = new Refusal(['ip'], "'-force -batch -'");
    refusal.begin();
    await using agent = await startAgent(refusal.env);
    await expectFailure(agent, 'kernel', /refused as ordered/);
    assert.doesNotMatch(agent.messages.join('\n'), /flannel is ready/);
    refusal.end();
    await expectReady(agent);
    refusal.begin();
    await ip('route', 'del', NETWORK);
    await expectFailure(agent, 'kernel', /refused as ordered/);
    refusal.end();
    await expectReady(agent);
  });

  it('is not ready while its CNI configuration cannot be made, and leaves the last good one', async () => {
    const [conf, template] = [join(host.stateDirectory, 'net.d'), join(host.stateDirectory, 'cni-template.json')];
    const templateWith = (hairpinMode: boolean): string =>
      JSON.stringify({
        ...{ name: 'cbr0', cniVersion: '1.0.0' },
        plugins: [{ type: 'flannel', delegate: { hairpinMode, isDefaultGateway: true } }],
      });
    const written = (): string => readFileSync(join(conf, '10-flannel.conflist'), 'utf8');
    mkdirSync(conf);
    writeFileSync(template, templateWith(true));
    await using agent = await startAgent({}, `--cni-conf-dir=${conf}`, `--cni-conf-template=${template}`);
    await expectReady(agent);
    const good = written();
    assert.match(good, /"hairpinMode": ?true/);
    writeFileSync(template, '{"plugins": [');
    await expectFailure(agent, 'cni-conf', /cni-template\.json/);
    assert.equal(written(), good);
    writeFileSync(template, templateWith(false));
    await expectReady(agent);
    assert.match(written(), /"hairpinMode": ?false/);
  });

  it('is not ready while rules that somebody removed cannot be put back', async () => {
    using refusal = new Refusal(['iptables-restore', 'iptables'], '*');
    await using agent = await startAgent(refusal.env);
    await expectReady(agent);
    refusal.begin();
    await topology.exec(host, ['iptables', '-t', 'nat', '-F', 'FLANNEL-POSTRTG']);
    await expectFailure(agent, 'rules', /the traffic rules: .*refused as ordered/);
    refusal.end();
    await expectReady(agent);
  });
});
