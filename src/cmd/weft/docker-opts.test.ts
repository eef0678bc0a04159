import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { bridgeNetwork, conflictingRoute, dockerOpts, dockerOptsCommand } from './docker-opts.ts';

const SAMPLE = 'FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n';

const BIP = 'DOCKER_OPT_BIP="--bip=10.1.74.1/24"\n';
const IPMASQ = 'DOCKER_OPT_IPMASQ="--ip-masq=true"\n';
const MTU = 'DOCKER_OPT_MTU="--mtu=1472"\n';
const ALL = '=" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472"\n';

async function outputOf(args: readonly string[], subnetEnv: string | undefined): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-docker-opts-'));
  try {
    const [input, output] = [join(directory, 'subnet.env'), join(directory, 'docker_opts.env')];
    if (subnetEnv !== undefined) await writeFile(input, subnetEnv);
    await dockerOptsCommand()
      .exitOverride()
      .parseAsync(['-f', input, '-d', output, ...args], { from: 'user' });
    return await readFile(output, 'utf8');
  } finally {
    await rm(directory, { recursive: true });
  }
}

describe('weft docker-opts', () => {
  const cases: readonly { readonly args: readonly string[]; readonly expected: string }[] = [
    { args: [], expected: `${BIP}${IPMASQ}${MTU}DOCKER_OPTS${ALL}` },
    { args: ['-i'], expected: `${BIP}${IPMASQ}${MTU}` },
    { args: ['-c'], expected: `DOCKER_OPTS${ALL}` },
    { args: ['-ic'], expected: `${BIP}${IPMASQ}${MTU}DOCKER_OPTS${ALL}` },
    { args: ['-k', 'CUSTOM_KEY'], expected: `${BIP}${IPMASQ}${MTU}CUSTOM_KEY${ALL}` },
    { args: ['-m'], expected: `${BIP}${MTU}DOCKER_OPTS=" --bip=10.1.74.1/24 --mtu=1472"\n` },
  ];
  for (const { args, expected } of cases) {
    it(`writes what mk-docker-opts.sh writes: ${args.join(' ') || 'no flags'}`, async () => {
      assert.equal(await outputOf(args, SAMPLE), expected);
    });
  }

  it('ignores blank lines, trailing blanks, quotes and comments', async () => {
    const messy = SAMPLE.replaceAll('\n', '  \n\n')
      .replace('1472', '"1472" # path MTU')
      .replace('FLANNEL_MTU', 'export FLANNEL_MTU');
    assert.equal(await outputOf(['-c'], messy), `DOCKER_OPTS${ALL}`);
  });

  it('takes a missing subnet.env for an empty one', async () => {
    assert.equal(await outputOf([], undefined), 'DOCKER_OPTS=""\n');
  });

  it('ends before writing when FLANNEL_IPMASQ is no boolean', async () => {
    await assert.rejects(outputOf([], SAMPLE.replace('false', 'perhaps')), /Invalid value of FLANNEL_IPMASQ: perhaps/);
    assert.doesNotMatch(await outputOf(['-m'], SAMPLE.replace('false', 'perhaps')), /ip-masq/);
  });

  it('names a file that cannot be written', async () => {
    await assert.rejects(outputOf(['-d', '/nonexistent/x'], SAMPLE), { code: 'WEFT_OUTPUT_UNWRITABLE' });
  });
});

describe('dockerOpts', () => {
  const request = { individual: true, combined: true, combinedKey: 'DOCKER_OPTS', ipMasq: true };

  it('puts exported options among its own, by name, and what the variable held before them', () => {
    const variables = {
      FLANNEL_MTU: '1400',
      FLANNEL_IPMASQ: 'true',
      DOCKER_OPT_LOG: '--log-level=warn --debug',
      DOCKER_OPTS: '-H unix://',
      HOME: '/root',
    };
    assert.equal(
      dockerOpts({ ...request, variables }),
      [
        'DOCKER_OPT_IPMASQ="--ip-masq=false"',
        'DOCKER_OPT_LOG="--log-level=warn --debug"',
        'DOCKER_OPT_MTU="--mtu=1400"',
        'DOCKER_OPTS="-H unix://  --ip-masq=false --log-level=warn --debug --mtu=1400"',
        '',
      ].join('\n'),
    );
  });
});

describe('the subnet in the routing table', () => {
  it('is found when it goes through a gateway', () => {
    const network = bridgeNetwork('10.1.74.1/24');
    assert.equal(network, '10.1.74.0/24');
    const direct = '10.1.74.0/24 dev docker0 proto kernel scope link src 10.1.74.1';
    const routed = '10.1.74.0/24 via 192.168.0.9 dev eth0';
    const longer = '110.1.74.0/24 via 192.168.0.9 dev eth0';
    assert.equal(conflictingRoute(`default via 192.168.0.1 dev eth0\n${direct}\n${longer}\n`, network), undefined);
    assert.equal(conflictingRoute(`${direct}\n${routed} \n`, network), routed);
    assert.equal(bridgeNetwork('10.1.74.129/25'), '10.1.74.128/25');
    assert.equal(bridgeNetwork('nonsense'), undefined);
  });
});
