import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { backendKind, backendKinds } from '../backend/registry.ts';
import { WeftError } from '../errors.ts';
import { formatIpv4, ipv4Of } from '../ip/ipv4.ts';
import { formatIpv6, ipv6Of } from '../ip/ipv6.ts';
import { containsAddr4, formatPrefix4, formatPrefix6, parsePrefix4, prefix4, prefix6 } from '../ip/prefix.ts';
import { inspectNetConf, parseNetConf } from './net-conf.ts';
import type { NetworkConfig } from './network-config.ts';

const full = { source: 'test', validation: 'full', backends: backendKind } as const;
const kube = { source: 'test', validation: 'kube', backends: backendKind } as const;

function problems(text: string, validation: 'full' | 'kube' = 'full'): string[] {
  return inspectNetConf(text, { validation, backends: backendKind }).problems.map(
    ({ path, message }) => `${path}: ${message}`,
  );
}

/** The problems of a configuration that is right but for `fields`. */
function problemsWith(fields: object, validation: 'full' | 'kube' = 'full'): string[] {
  return problems(JSON.stringify({ Network: '10.3.0.0/16', Backend: { Type: 'vxlan' }, ...fields }), validation);
}

function ipv4Plan(config: NetworkConfig): object | undefined {
  const plan = config.ipv4;
  return (
    plan && {
      network: formatPrefix4(plan.network),
      length: plan.subnetLength,
      min: formatIpv4(plan.subnetMin),
      max: formatIpv4(plan.subnetMax),
    }
  );
}

function ipv6Plan(config: NetworkConfig): object | undefined {
  const plan = config.ipv6;
  return (
    plan && {
      network: formatPrefix6(plan.network),
      length: plan.subnetLength,
      min: formatIpv6(plan.subnetMin),
      max: formatIpv6(plan.subnetMax),
    }
  );
}

describe('net-conf.json: defaults', () => {
  it('fills in the IPv4 plan and the udp backend', () => {
    const config = parseNetConf('{"Network":"10.3.0.0/16"}', full);
    assert.deepEqual(ipv4Plan(config), { network: '10.3.0.0/16', length: 24, min: '10.3.1.0', max: '10.3.255.0' });
    assert.equal(config.ipv6, undefined);
    assert.equal(config.enableNfTables, false);
    assert.equal(config.backend.type, 'udp');
    assert.deepEqual(config.backend.written, {});
  });

  it('fills in the IPv6 plan', () => {
    const text =
      '{"EnableIPv6":true,"Network":"10.3.0.0/16","IPv6Network":"fc00::/48","Backend":{"Type":"vxlan"},"enablenftables":true}';
    const config = parseNetConf(text, full);
    assert.deepEqual(ipv6Plan(config), {
      network: 'fc00::/48',
      length: 64,
      min: 'fc00:0:0:1::',
      max: 'fc00:0:0:ffff::',
    });
    assert.equal(config.enableNfTables, true);
  });

  it('takes given values', () => {
    const text = JSON.stringify({
      Network: '10.3.0.0/16',
      SubnetMin: '10.3.5.0',
      SubnetMax: '10.3.8.0',
      SubnetLen: 28,
      EnableIPv6: true,
      IPv6Network: 'fc00::/48',
      IPv6SubnetMin: 'fc00:0:0:1::',
      IPv6SubnetMax: 'fc00:0:0:f::',
      IPv6SubnetLen: 124,
      Backend: { Type: 'VXLAN', VNI: 7 },
    });
    const config = parseNetConf(text, full);
    assert.deepEqual(ipv4Plan(config), { network: '10.3.0.0/16', length: 28, min: '10.3.5.0', max: '10.3.8.0' });
    assert.deepEqual(ipv6Plan(config), {
      network: 'fc00::/48',
      length: 124,
      min: 'fc00:0:0:1::',
      max: 'fc00:0:0:f::',
    });
    assert.equal(config.backend.type, 'vxlan');
    assert.deepEqual(config.backend.written, { Type: 'VXLAN', VNI: 7 });
  });

  it('masks host bits off, and takes 0, 0.0.0.0 and :: as not given', () => {
    const text = JSON.stringify({
      Network: '10.3.7.9/16',
      SubnetLen: 0,
      SubnetMin: '0.0.0.0',
      SubnetMax: '0.0.0.0',
      EnableIPv6: true,
      IPv6Network: 'fc00::1/48',
      IPv6SubnetMin: '::',
      IPv6SubnetMax: null,
      Backend: { Type: 'host-gw' },
    });
    const config = parseNetConf(text, full);
    assert.deepEqual(ipv4Plan(config), { network: '10.3.0.0/16', length: 24, min: '10.3.1.0', max: '10.3.255.0' });
    assert.equal(formatPrefix6(config.ipv6!.network), 'fc00::/48');
  });

  const lengths: [string, number][] = [
    ['10.0.0.0/8', 24],
    ['10.3.0.0/22', 24],
    ['10.3.0.0/23', 25],
    ['10.3.1.0/28', 30],
    ['255.0.0.0/8', 24],
  ];
  for (const [network, length] of lengths) {
    it(`gives ${network} subnets of /${length}`, () => {
      const config = parseNetConf(JSON.stringify({ Network: network }), full);
      assert.equal(config.ipv4?.subnetLength, length);
      const last = prefix4(config.ipv4!.subnetMax, length);
      assert.ok(containsAddr4(parsePrefix4(network)!, last.addr));
    });
  }

  it('is frozen, the Backend object included', () => {
    const config = parseNetConf('{"Network":"10.3.0.0/16","Backend":{"Type":"udp","X":{"Y":[1]}}}', full);
    assert.ok(
      Object.isFrozen(config) &&
        Object.isFrozen(config.ipv4) &&
        Object.isFrozen(config.backend) &&
        Object.isFrozen(config.backend.written),
    );
    assert.ok(Object.isFrozen((config.backend.written.X as { Y: unknown }).Y));
  });
});

describe('net-conf.json: as Go decodes it', () => {
  it('matches keys in any case, also by the two letters that fold into ASCII', () => {
    const config = parseNetConf(
      '{"network":"10.3.0.0/16","\u017fUBNETLEN":26,"bac\u212aEND":{"TYPE":"HOST-GW"},"enableipv6":false}',
      full,
    );
    assert.equal(config.ipv4?.subnetLength, 26);
    assert.equal(config.backend.type, 'host-gw');
  });

  it('lets the last of repeated keys win, across spellings and whatever the order of the first ones', () => {
    const text =
      '{"network":"10.1.0.0/16","Network":"10.2.0.0/16","network":"10.3.0.0/16","Backend":{"Type":"vxlan","VNI":3},"backend":{"Type":"a","type":"host-gw"}}';
    const inspection = inspectNetConf(text, full);
    assert.equal(formatPrefix4(inspection.config!.ipv4!.network), '10.3.0.0/16');
    assert.equal(inspection.config?.backend.type, 'host-gw');
    assert.deepEqual(
      inspection.warnings.map(({ path }) => path),
      ['$.network', '$.backend'],
    );
  });

  it('leaves a value alone when null follows it', () => {
    const text =
      '{"Network":"10.3.0.0/16","SubnetLen":26,"subnetlen":null,"EnableIPv6":null,"Backend":{"Type":"udp","Type":null,"Port":9,"Port":null}}';
    const config = parseNetConf(text, full);
    assert.equal(config.ipv4?.subnetLength, 26);
    assert.equal(config.backend.type, 'udp');
    assert.equal(config.backend.written.Port, 9);
  });

  it('accepts a text of null as an empty object, which Kubernetes mode can live with', () => {
    const config = parseNetConf('{"Backend":{"Type":"vxlan"}}', kube);
    assert.equal(formatPrefix4(config.ipv4!.network), '0.0.0.0/0');
    assert.match(problems('null')[0] ?? '', /^\$\.Network: please define a correct Network parameter/);
  });

  it('ignores unknown keys and lists them', () => {
    const text = JSON.stringify({
      Network: '10.3.0.0/16',
      Netwrok: 1,
      'a.b': 2,
      IPv6Network: 'fc00::/48',
      Backend: { Type: 'udp', Prot: 1, port: 9000 },
    });
    const inspection = inspectNetConf(text, full);
    assert.deepEqual(inspection.ignoredKeys.toSorted(), ['$.Backend.Prot', '$.IPv6Network', '$.Netwrok', '$["a.b"]']);
    assert.deepEqual(inspection.problems, []);
  });

  const wrongTypes: [string, RegExp][] = [
    [
      '{"Network":"10.3.0.0/16","SubnetLen":24.0}',
      /^\$\.SubnetLen: must be a whole number of 0 or more, but is 24\.0$/,
    ],
    ['{"Network":"10.3.0.0/16","SubnetLen":2e1}', /^\$\.SubnetLen: .*but is 2e1$/],
    ['{"Network":"10.3.0.0/16","SubnetLen":-1}', /^\$\.SubnetLen: .*but is -1$/],
    ['{"Network":"10.3.0.0/16","SubnetLen":-0}', /^\$\.SubnetLen: .*but is -0$/],
    ['{"Network":"10.3.0.0/16","SubnetLen":18446744073709551616}', /^\$\.SubnetLen: must be/],
    ['{"Network":"10.3.0.0/16","SubnetLen":"24"}', /^\$\.SubnetLen: .*but is the string "24"$/],
    ['{"Network":"10.3.0.0/16","SubnetLen":"x","SubnetLen":24}', /^\$\.SubnetLen: .*"x"$/],
    [
      '{"Network":"10.3.0.0/16","EnableIPv4":"true"}',
      /^\$\.EnableIPv4: must be true or false, but is the string "true"$/,
    ],
    ['{"Network":null}', /^\$\.Network: invalid IPv4 CIDR format: .*but is null$/],
    ['{"Network":"10.3.0.0"}', /^\$\.Network: invalid IPv4 CIDR format/],
    ['{"Network":"fc00::/48"}', /^\$\.Network: invalid IPv4 CIDR format/],
    ['{"Network":"10.3.0.0/33"}', /^\$\.Network: invalid IPv4 CIDR format/],
    ['{"Network":"010.3.0.0/16"}', /^\$\.Network: invalid IPv4 CIDR format/],
    ['{"network":"10.3.0.0/16","subnetmin":"fc00::"}', /^\$\.subnetmin: invalid IPv4 address format/],
    ['{"Network":"10.3.0.0/16","SubnetMin":""}', /^\$\.SubnetMin: .*leave the key out/],
    ['{"Network":"10.3.0.0/16","SubnetMin":null}', /^\$\.SubnetMin: invalid IPv4 address format: null$/],
    ['{"Network":"10.3.0.0/16","IPv6Network":"10.0.0.0/8"}', /^\$\.IPv6Network: invalid IPv6 CIDR format/],
    [
      '{"Network":"10.3.0.0/16","Backend":"udp"}',
      /^\$\.Backend: error decoding Backend property of config: .*the string "udp"$/,
    ],
    ['{"Network":"10.3.0.0/16","Backend":{"Type":7}}', /^\$\.Backend\.Type: error decoding Backend property of config/],
    // Not a Type that the next start would refuse.
    ['{"Network":"10.3.0.0/16","Backend":{}}', /^\$\.Backend\.Type: unknown backend type: [^,]*, "udp" for instance$/],
    [
      '{"Network":"10.3.0.0/16","Backend":{"Type":"udp","Port":8285.0}}',
      /^\$\.Backend\.Port: must be a whole number without point or exponent, but is 8285\.0$/,
    ],
    ['{"Network":"10.3.0.0/16","Backend":{"Type":"vxlan","vni":1E0}}', /^\$\.Backend\.vni: .*but is 1E0$/],
    ['{"Network":"10.3.0.0/16","Backend":{"Type":"udp","Port":82.5}}', /^\$\.Backend\.Port: .*but is 82\.5$/],
    [
      '\ufeff{"Network":"10.3.0.0/16"}',
      /^\$: invalid character U\+FEFF \(byte order mark\) looking for beginning of value \(line 1, column 1\)$/,
    ],
    [
      '{"Network":\n\u00a0"10.3.0.0/16"}',
      /^\$: invalid character U\+00A0 \(no-break space\) looking for beginning of value \(line 2, column 1\)$/,
    ],
    [
      '{\u201cNetwork\u201d:"10.3.0.0/16"}',
      /^\$: invalid character U\+201C \(left double quotation mark\) looking for beginning of object key string/,
    ],
    ['{"Network":"10.3.0.0/16\u00a0"}', /but is the string "10\.3\.0\.0\/16<U\+00A0 \(no-break space\)>"$/],
    ['{"Network":"10.3.0.0/16","Backend":{"Type":"udp","Port":"8285\u200b"}}', /"8285<U\+200B \(zero width space\)>"$/],
    ['{"Network":"10.3.0.0/16","Backend":null}', /^\$\.Backend\.Type: unknown backend type: /],
    ['[]', /^\$: must be an object, but is an array$/],
    ['7', /^\$: must be an object, but is 7$/],
    ['', /^\$: unexpected end of JSON input \(line 1, column 1\)$/],
    [
      '{\n  "Network": "10.3.0.0/16",\n}',
      /^\$: invalid character '}' looking for beginning of object key string \(line 3, column 1\)$/,
    ],
  ];
  for (const [text, expected] of wrongTypes) {
    it(`refuses ${JSON.stringify(text)} in both modes`, () => {
      for (const validation of ['full', 'kube'] as const) {
        const found = problems(text, validation);
        assert.equal(found.length, 1, found.join('\n'));
        assert.match(found[0]!, expected);
      }
    });
  }
});

describe('net-conf.json: checks of the managers that hand out subnets', () => {
  const cases: [object, RegExp][] = [
    [{ Network: '0.0.0.0/0' }, /^\$\.Network: please define a correct Network parameter in the flannel config$/],
    [{ Network: undefined }, /^\$\.Network: please define a correct Network parameter in the flannel config$/],
    [{ SubnetLen: 31 }, /^\$\.SubnetLen: SubnetLen must be less than \/31 \(is 31\)$/],
    [
      { SubnetLen: 17 },
      /^\$\.SubnetLen: network must be able to accommodate at least four subnets \(10\.3\.0\.0\/16 needs a SubnetLen of 18 or more, not 17\)$/,
    ],
    [
      { Network: '10.3.0.0/29' },
      /^\$\.Network: network is too small\. Minimum useful network prefix is \/28 \(is 10\.3\.0\.0\/29\)$/,
    ],
    [
      { SubnetMin: '10.4.0.0' },
      /^\$\.SubnetMin: SubnetMin is not in the range of the Network \(10\.4\.0\.0 is outside/,
    ],
    [{ SubnetMax: '10.4.0.0' }, /^\$\.SubnetMax: SubnetMax is not in the range of the Network/],
    [
      { SubnetMin: '10.3.5.1' },
      /^\$\.SubnetMin: SubnetMin is not on a SubnetLen boundary: 10\.3\.5\.1 \(SubnetLen is 24\)$/,
    ],
    [{ SubnetMax: '10.3.5.128' }, /^\$\.SubnetMax: SubnetMax is not on a SubnetLen boundary: 10\.3\.5\.128/],
    [
      { SubnetMin: '10.3.9.0', SubnetMax: '10.3.8.0' },
      /^\$\.SubnetMin: SubnetMin 10\.3\.9\.0 is above SubnetMax 10\.3\.8\.0/,
    ],
    [{ SubnetMax: '10.3.0.0' }, /^\$\.SubnetMax: SubnetMin 10\.3\.1\.0 is above SubnetMax 10\.3\.0\.0/],
    [{ EnableIPv6: true }, /^\$\.IPv6Network: please define a correct IPv6Network parameter in the flannel config$/],
    [
      { EnableIPv6: true, IPv6Network: 'fc00::/48', IPv6SubnetLen: 127 },
      /^\$\.IPv6SubnetLen: SubnetLen must be less than \/127/,
    ],
    [
      { EnableIPv6: true, IPv6Network: 'fc00::/48', IPv6SubnetLen: 49 },
      /^\$\.IPv6SubnetLen: network must be able to accommodate at least four subnets/,
    ],
    [
      { EnableIPv6: true, IPv6Network: 'fc00::/125' },
      /^\$\.IPv6Network: IPv6Network is too small\. Minimum useful network prefix is \/124/,
    ],
    [
      { EnableIPv6: true, IPv6Network: 'fc00::/48', IPv6SubnetMin: 'fd00::' },
      /^\$\.IPv6SubnetMin: IPv6SubnetMin is not in the range of the IPv6Network/,
    ],
    [
      { EnableIPv6: true, IPv6Network: 'fc00::/48', IPv6SubnetMax: 'fc00::1' },
      /^\$\.IPv6SubnetMax: IPv6SubnetMax is not on a SubnetLen boundary/,
    ],
    [{ EnableIPv4: false }, /^\$\.EnableIPv4: none defined stack/],
    [
      { EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fc00::/48' },
      /^\$\.EnableIPv4: IPv6 without IPv4 needs the Kubernetes subnet manager/,
    ],
    [{ Backend: { Type: 'udp', Port: 0 } }, /^\$\.Backend\.Port: must be a whole number from 1 to 65535, but is 0$/],
    [{ Backend: { Type: 'vxlan', VNI: '1' } }, /^\$\.Backend\.VNI: .*the string "1"$/],
    [{ Backend: { Type: 'wireguard', Mode: 'Auto' } }, /^\$\.Backend\.Mode: no valid Mode configured: "Auto"/],
  ];
  for (const [fields, expected] of cases) {
    it(`refuses ${JSON.stringify(fields)}`, () => {
      const found = problemsWith(fields);
      assert.equal(found.length, 1, found.join('\n'));
      assert.match(found[0]!, expected);
    });
  }

  it('reports all problems together in one error', () => {
    const text = JSON.stringify({
      Network: '10.3.0.0/16',
      SubnetMin: '10.9.0.1',
      SubnetMax: '10.3.4.5',
      EnableIPv6: true,
      EnableNFTables: 1,
      Backend: { Type: 'udp', Port: 70_000 },
    });
    assert.throws(
      () =>
        parseNetConf(text, { source: '/etc/kube-flannel/net-conf.json', validation: 'full', backends: backendKind }),
      (error: unknown) => {
        assert.ok(error instanceof WeftError);
        assert.equal(error.code, 'WEFT_CONFIG_INVALID');
        for (const part of [
          '/etc/kube-flannel/net-conf.json',
          '$.EnableNFTables: must be true or false',
          '$.SubnetMin: SubnetMin is not in the range of the Network',
          '$.SubnetMin: SubnetMin is not on a SubnetLen boundary',
          '$.SubnetMax: SubnetMax is not on a SubnetLen boundary',
          '$.IPv6Network: please define a correct IPv6Network',
          '$.Backend.Port: must be a whole number from 1 to 65535',
        ]) {
          assert.ok(error.message.includes(part), `${part} in ${error.message}`);
        }
        assert.match(error.hint ?? '', /Correct all 6 problems/);
        return true;
      },
    );
  });
});

describe('net-conf.json: Kubernetes mode', () => {
  it('checks neither lengths nor ends, and says that they have no effect', () => {
    const text = JSON.stringify({
      Network: '10.3.0.0/30',
      SubnetLen: 99,
      SubnetMin: '1.2.3.4',
      SubnetMax: '1.2.3.3',
      Backend: { Type: 'vxlan' },
    });
    const { config, ignoredKeys } = inspectNetConf(text, kube);
    assert.equal(formatPrefix4(config!.ipv4!.network), '10.3.0.0/30');
    assert.deepEqual(ignoredKeys, ['$.SubnetLen', '$.SubnetMin', '$.SubnetMax']);
  });

  it('takes IPv6 without IPv4', () => {
    const text = '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/56","Backend":{"Type":"vxlan"}}';
    const config = parseNetConf(text, kube);
    assert.equal(config.ipv4, undefined);
    assert.equal(formatPrefix6(config.ipv6!.network), 'fd00:10:244::/56');
  });

  it('refuses IPv6 alone for backends that carry IPv4 only, and warns when both are on', () => {
    const needed: Readonly<Record<string, object>> = { ipsec: { PSK: 'a'.repeat(96) } };
    const types = backendKinds().flatMap(({ type, families }) => (families.includes('ipv6') ? [] : [type]));
    assert.deepEqual(types.toSorted(), ['alloc', 'ipip', 'ipsec', 'tencent-vpc']);
    for (const type of types) {
      const backend = { Backend: { Type: type, ...needed[type] }, EnableIPv6: true, IPv6Network: 'fd00::/56' };
      const limit = `the ${type} backend carries IPv4 only`;
      const alone = problemsWith({ ...backend, EnableIPv4: false }, 'kube');
      assert.deepEqual(
        alone.map((problem) => problem.includes(limit)),
        [true],
        alone.join(),
      );
      const both = inspectNetConf(JSON.stringify({ Network: '10.3.0.0/16', ...backend }), kube);
      assert.deepEqual(both.problems, []);
      assert.ok(both.warnings[0]?.message.includes(limit), type);
    }
  });

  it('does without a Network as flannel does, except where that would hijack the default route', () => {
    assert.deepEqual(problemsWith({ Network: undefined }, 'kube'), []);
    const udp = problemsWith({ Network: undefined, Backend: { Type: 'udp' } }, 'kube');
    assert.match(udp.join(), /^\$\.Network: please define a correct Network parameter/);
  });

  it('plans every network, down to a single address', () => {
    fc.assert(
      fc.property(fc.nat(0xffffffff), fc.integer({ min: 1, max: 32 }), (addr, length) => {
        const network = prefix4(ipv4Of(addr), length);
        const { ipv4 } = parseNetConf(JSON.stringify({ Network: formatPrefix4(network) }), kube);
        assert.ok(ipv4 && ipv4.subnetLength <= 32 && ipv4.subnetMin <= ipv4.subnetMax);
        assert.ok(containsAddr4(network, ipv4.subnetMin) && containsAddr4(network, ipv4.subnetMax));
      }),
    );
  });
});

describe('net-conf.json: properties', () => {
  it('a valid plan lies inside its network, aligned, min not above max', () => {
    const input = fc.record({
      addr: fc.nat(0xffffffff),
      length: fc.integer({ min: 1, max: 28 }),
      subnetLen: fc.option(fc.integer({ min: 3, max: 30 }), { nil: undefined }),
    });
    fc.assert(
      fc.property(input, ({ addr, length, subnetLen }) => {
        const network = prefix4(ipv4Of(addr), length);
        const text = JSON.stringify({ Network: formatPrefix4(network), SubnetLen: subnetLen });
        const { config, problems } = inspectNetConf(text, full);
        if (subnetLen !== undefined && subnetLen < length + 2) {
          assert.match(problems[0]?.message ?? '', /at least four subnets/);
          return;
        }
        const plan = config!.ipv4!;
        assert.equal(plan.subnetLength, subnetLen ?? (length <= 22 ? 24 : length + 2));
        const size = 2 ** (32 - plan.subnetLength);
        assert.equal(plan.subnetMin, network.addr + size);
        assert.equal(plan.subnetMax, network.addr + 2 ** (32 - length) - size);
      }),
    );
  });

  it('an IPv6 plan likewise', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 1n << 120n, max: (1n << 128n) - 1n }),
        fc.integer({ min: 8, max: 124 }),
        (addr, length) => {
          const network = prefix6(ipv6Of(addr), length);
          const text = JSON.stringify({
            Network: '10.3.0.0/16',
            EnableIPv6: true,
            IPv6Network: formatPrefix6(network),
            Backend: { Type: 'vxlan' },
          });
          const plan = parseNetConf(text, full).ipv6!;
          assert.equal(plan.subnetLength, length <= 62 ? 64 : length + 2);
          const size = 1n << BigInt(128 - plan.subnetLength);
          assert.equal(plan.subnetMin, network.addr + size);
          assert.equal(plan.subnetMax, network.addr + (1n << BigInt(128 - length)) - size);
        },
      ),
    );
  });

  it('never throws anything but WEFT_CONFIG_INVALID, whatever the text', () => {
    const odd = fc.oneof(
      fc.string(),
      fc.json(),
      fc
        .record(
          {
            Network: fc.oneof(fc.jsonValue(), fc.constantFrom('10.0.0.0/8', '10.0.0.0/30', '::/0')),
            SubnetLen: fc.oneof(fc.jsonValue(), fc.integer()),
            SubnetMin: fc.oneof(fc.jsonValue(), fc.ipV4()),
            IPv6Network: fc.oneof(fc.jsonValue(), fc.ipV6()),
            EnableIPv6: fc.jsonValue(),
            Backend: fc.oneof(
              fc.jsonValue(),
              fc.record({ Type: fc.constantFrom('udp', 'vxlan'), Port: fc.jsonValue() }),
            ),
          },
          { requiredKeys: [] },
        )
        .map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(odd, fc.constantFrom('full', 'kube'), (text, validation) => {
        try {
          parseNetConf(text, { source: 'test', validation, backends: backendKind });
        } catch (error) {
          assert.ok(error instanceof WeftError && error.code === 'WEFT_CONFIG_INVALID', String(error));
          assert.notDeepEqual(inspectNetConf(text, { validation, backends: backendKind }).problems, []);
        }
      }),
    );
  });
});
