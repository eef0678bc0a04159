import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { buildDelegateConfig } from './delegate-config.ts';
import type { JsonObject } from './plugin-config.ts';
import { parsePluginConfig } from './plugin-config.ts';
import { parsePluginSubnetEnv } from './plugin-subnet-env.ts';

const IPV4 = 'FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n';
const IPV4_TWO = 'FLANNEL_NETWORK=10.1.0.0/16,192.168.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n';
const IPV6 = 'FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\n';
const END = 'FLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';

function build(config: JsonObject, env = IPV4 + END): string {
  const text = JSON.stringify({ name: 'cni-flannel', type: 'flannel', ...config });
  return buildDelegateConfig(parsePluginConfig(text), parsePluginSubnetEnv(env, 'subnet.env')).json;
}

const IPAM_V4 = '"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"}';

describe('the configuration of the delegate', () => {
  it("is what flannel's plugin makes, to the byte, for each kind of subnet.env", () => {
    const around = (ipam: string): string =>
      `{"ipMasq":false,${ipam},"isGateway":true,"mtu":1472,"name":"cni-flannel","type":"bridge"}`;
    assert.equal(build({}), around(IPAM_V4));
    assert.equal(
      build({}, IPV4_TWO + END),
      around(
        '"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"},{"dst":"192.168.0.0/16"}],"type":"host-local"}',
      ),
    );
    assert.equal(
      build({}, IPV6 + END),
      around('"ipam":{"ranges":[[{"subnet":"fc00::/64"}]],"routes":[{"dst":"fc00::/48"}],"type":"host-local"}'),
    );
    assert.equal(
      build({}, IPV4 + IPV6 + END),
      around(
        '"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}],[{"subnet":"fc00::/64"}]],"routes":[{"dst":"10.1.0.0/16"},{"dst":"fc00::/48"}],"type":"host-local"}',
      ),
    );
  });

  it('has what the user says about the delegate, over the defaults', () => {
    assert.equal(
      build({ cniVersion: '0.3.1', name: 'cbr0', delegate: { hairpinMode: true, isDefaultGateway: true } }),
      `{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,${IPAM_V4},"isDefaultGateway":true,"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}`,
    );
    assert.equal(
      build({
        delegate: { ipMasq: true, mtu: 1400.0, isGateway: false, type: 'bridge', forceAddress: null, 'a<b': '&' },
      }),
      `{"a\\u003cb":"\\u0026","forceAddress":null,"ipMasq":true,${IPAM_V4},"isGateway":false,"mtu":1400,"name":"cni-flannel","type":"bridge"}`,
    );
  });

  it('is no gateway by itself when the delegate is no bridge', () => {
    assert.equal(
      build({ delegate: { type: 'ipvlan', master: 'eth0' } }),
      `{"ipMasq":false,${IPAM_V4},"master":"eth0","mtu":1472,"name":"cni-flannel","type":"ipvlan"}`,
    );
  });

  it('masquerades when flanneld does not', () => {
    assert.match(build({}, `${IPV4}FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n`), /^\{"ipMasq":true,.*"mtu":1450,/);
  });

  it("hands runtimeConfig on, also over the delegate's own, and nothing else of the plugin's", () => {
    const runtimeConfig = {
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
      mac: '00:11:22:33:44:55',
    };
    assert.equal(
      build({
        runtimeConfig,
        delegate: { runtimeConfig: { old: true } },
        prevResult: { cniVersion: '1.0.0' },
        capabilities: { portMappings: true },
        args: { cni: {} },
        dns: { nameservers: ['10.96.0.10'] },
      }),
      `{"ipMasq":false,${IPAM_V4},"isGateway":true,"mtu":1472,"name":"cni-flannel","runtimeConfig":{"mac":"00:11:22:33:44:55","portMappings":[{"containerPort":80,"hostPort":8080,"protocol":"tcp"}]},"type":"bridge"}`,
    );
    assert.match(build({ runtimeConfig: {} }), /"runtimeConfig":\{\}/);
    assert.doesNotMatch(build({ runtimeConfig: null }), /runtimeConfig/);
  });

  it("merges ipam: type, unknown keys and routes are the user's, ranges are flannel's", () => {
    const routes = [{ dst: '10.96.0.0/12' }, { dst: '192.168.244.0/24', gw: '10.1.17.20' }];
    const written = '{"dst":"10.96.0.0/12"},{"dst":"192.168.244.0/24","gw":"10.1.17.20"},{"dst":"10.1.0.0/16"}';
    const ranges = '"ranges":[[{"subnet":"10.1.17.0/24"}]]';
    assert.ok(
      build({
        ipam: { type: 'my-ipam', 'unknown-param': 'unknown-value', ranges: [[{ subnet: '9.9.9.0/24' }]], routes },
      }).includes(`"ipam":{${ranges},"routes":[${written}],"type":"my-ipam","unknown-param":"unknown-value"}`),
    );
    assert.ok(
      build({ ipam: { dataDir: '/run/networks', routes } }).includes(
        `"ipam":{"dataDir":"/run/networks",${ranges},"routes":[${written}],"type":"host-local"}`,
      ),
    );
  });

  it('writes routes with their members in the order of the CNI library, addresses in canonical form', () => {
    const route = {
      scope: 0,
      table: 7,
      gw: 'FC00:0::1',
      priority: 5,
      Dst: 'FC01:0::5/64',
      advmss: 1400,
      mtu: 0,
      extra: 1,
    };
    assert.match(
      build({ ipam: { routes: [route] } }),
      /"routes":\[\{"dst":"fc01::5\/64","gw":"fc00::1","advmss":1400,"priority":5,"table":7,"scope":0\},\{"dst":"10\.1\.0\.0\/16"\}\]/,
    );
    assert.match(build({ ipam: { routes: null } }), /"routes":\[\{"dst":"10\.1\.0\.0\/16"\}\]/);
  });

  it('refuses routes that are none', () => {
    for (const [routes, message] of [
      [{ dst: '10.0.0.0/8' }, 'want a list of routes'],
      [['10.0.0.0/8'], 'route 0: want an object with dst'],
      [[{ dst: '10.0.0.0/8' }, { gw: '10.0.0.1' }], 'route 1: it has no dst'],
      [[{ dst: '10.0.0.0' }], 'route 0: dst: invalid CIDR address: "10.0.0.0"'],
      [[{ dst: '10.0.0.0/8', gw: 'here' }], 'route 0: gw: invalid IP address: "here"'],
      [[{ dst: '10.0.0.0/8', mtu: 1.5 }], 'route 0: mtu: want a whole number, got 1.5'],
    ] as const) {
      assert.throws(() => build({ ipam: { routes } as unknown as JsonObject }), {
        message: `failed to read IPAM routes: failed to parse ipam.routes: ${message}`,
      });
    }
  });

  it("refuses a delegate that sets what is flannel's", () => {
    const type = "'delegate' dictionary, if present, must have (string) 'type' field";
    for (const bad of [5, null, ['bridge']]) assert.throws(() => build({ delegate: { type: bad } }), { message: type });
    for (const key of ['name', 'ipam']) {
      assert.throws(() => build({ delegate: { [key]: null } }), {
        message: `'delegate' dictionary must not have '${key}' field, it'll be set by flannel`,
      });
    }
  });

  it('says which programs it needs', () => {
    const needs = (config: JsonObject) => {
      const text = JSON.stringify({ name: 'n', ...config });
      const { type, ipamType } = buildDelegateConfig(parsePluginConfig(text), parsePluginSubnetEnv(IPV4 + END, 'x'));
      return [type, ipamType];
    };
    assert.deepEqual(needs({}), ['bridge', 'host-local']);
    assert.deepEqual(needs({ delegate: { type: 'ptp' }, ipam: { type: 'dhcp' } }), ['ptp', 'dhcp']);
    assert.deepEqual(needs({ ipam: { type: 5 } }), ['bridge', '']);
  });
});

describe("the plugin's own configuration", () => {
  it('has defaults', () => {
    const { subnetFile, dataDir, delegate, ipam, runtimeConfig, validAttachments } = parsePluginConfig(
      '{"name":"cni-flannel","type":"flannel"}',
    );
    assert.deepEqual([subnetFile, dataDir], ['/run/flannel/subnet.env', '/var/lib/cni/flannel']);
    assert.deepEqual([delegate, ipam, runtimeConfig, validAttachments], [undefined, undefined, undefined, undefined]);
  });

  it('is read as Go reads it: keys in any case, null as absent, the rest ignored', () => {
    const config = parsePluginConfig(
      '{"NAME":"a","SubnetFile":"/a","subnetfile":"/b","dataDir":null,"delegate":null,"other":[]}',
    );
    assert.deepEqual(
      [config.name, config.subnetFile, config.dataDir, config.delegate],
      ['a', '/b', '/var/lib/cni/flannel', undefined],
    );
  });

  it('lists attachments under either name', () => {
    for (const key of ['cni.dev/valid-attachments', 'cni.dev/attachments']) {
      const text = JSON.stringify({ name: 'a', [key]: [{ containerID: 'c1', ifname: 'eth0' }] });
      assert.deepEqual(parsePluginConfig(text).validAttachments, [{ containerId: 'c1', ifName: 'eth0' }]);
    }
  });

  it('is refused with the place or the key', () => {
    assert.throws(() => parsePluginConfig('{"name":'), {
      code: 6,
      message: /^error unmarshall network config: unexpected end of JSON input \(line 1/,
    });
    assert.throws(() => parsePluginConfig('[]'), { code: 6, message: /want an object, got an array/ });
    for (const [key, value] of [
      ['subnetFile', 5],
      ['delegate', []],
      ['ipam', 'x'],
      ['runtimeConfig', true],
      ['cni.dev/valid-attachments', {}],
    ] as const) {
      assert.throws(() => parsePluginConfig(JSON.stringify({ name: 'a', [key]: value })), {
        code: 999,
        message: new RegExp(`^failed to load flannel netconf file: ${key}: want `),
      });
    }
  });
});
