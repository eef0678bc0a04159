import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FLANNEL_CONF_LIST, parseConfList } from './conf-list.ts';
import { buildDelegateConfig } from './delegate-config.ts';
import { isWrittenByWeft, renderConf, withoutWrapper } from './final-conf.ts';
import { type JsonObject, parsePluginConfig } from './plugin-config.ts';
import { parsePluginSubnetEnv } from './plugin-subnet-env.ts';

const ENV = parsePluginSubnetEnv(
  'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_IPV6_NETWORK=fd00::/56\nFLANNEL_IPV6_SUBNET=fd00:0:0:7::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n',
  'subnet.env',
);
const list = (...plugins: JsonObject[]) =>
  parseConfList(JSON.stringify({ name: 'cbr0', cniVersion: '0.3.1', plugins, disableCheck: true }), 'cni-conf.json');

describe('the configuration without the wrapper plugin', () => {
  it('is what the plugin flannel would start for each pod', () => {
    const final = withoutWrapper(FLANNEL_CONF_LIST, ENV, 'cni-conf.json');
    assert.deepEqual(final.plugins, [
      {
        type: 'bridge',
        hairpinMode: true,
        ipMasq: false,
        ipam: {
          ranges: [[{ subnet: '10.244.7.0/24' }], [{ subnet: 'fd00:0:0:7::/64' }]],
          routes: [
            { dst: '10.244.0.0/16', gw: '10.244.7.1' },
            { dst: 'fd00::/56', gw: 'fd00:0:0:7::1' },
          ],
          type: 'host-local',
        },
        isDefaultGateway: true,
        isGateway: true,
        mtu: 1472,
      },
      { type: 'portmap', capabilities: { portMappings: true } },
    ]);
    const { name, cniVersion } = final;
    assert.deepEqual([name, cniVersion], ['cbr0', '1.0.0']);
    // What bridge gets from the runtime, which adds name and version, is what it would get from the wrapper.
    const wrapped = { ...FLANNEL_CONF_LIST.plugins[0], name, cniVersion };
    const { json } = buildDelegateConfig(parsePluginConfig(JSON.stringify(wrapped)), ENV);
    const given = JSON.parse(json) as { ipam: JsonObject };
    const { ipam } = final.plugins[0] as unknown as { ipam: JsonObject };
    assert.deepEqual({ ...final.plugins[0], name, cniVersion, ipam: { ...ipam, routes: given.ipam.routes } }, given);
  });

  it('keeps what users write: their delegate, ipam, capabilities, further plugins and members of the list', () => {
    const template = list(
      {
        type: 'flannel',
        delegate: { type: 'ipvlan', master: 'eth0', mtu: 1300 },
        ipam: { dataDir: '/run/ips', routes: [{ dst: '0.0.0.0/0' }] },
        capabilities: { mac: true },
        subnetFile: '/elsewhere',
        dataDir: '/elsewhere',
      },
      { type: 'bandwidth', capabilities: { bandwidth: true } },
    );
    const final = withoutWrapper(template, ENV, 'cni-conf.json');
    const [delegate, bandwidth] = final.plugins;
    assert.deepEqual(
      [delegate!.type, delegate!.master, delegate!.mtu, delegate!.capabilities, 'subnetFile' in delegate!],
      ['ipvlan', 'eth0', 1300, { mac: true }, false],
    );
    assert.deepEqual((delegate!.ipam as JsonObject).routes, [
      { dst: '0.0.0.0/0', gw: '10.244.7.1' },
      { dst: '10.244.0.0/16', gw: '10.244.7.1' },
      { dst: 'fd00::/56', gw: 'fd00:0:0:7::1' },
    ]);
    assert.equal((delegate!.ipam as JsonObject).dataDir, '/run/ips');
    assert.deepEqual(bandwidth, { type: 'bandwidth', capabilities: { bandwidth: true } });
    assert.equal(final.rest.disableCheck, true);
  });

  it('names the gateway of each route that host-local would give one, and leaves the others', () => {
    const routesOf = (ipam: object) => {
      const final = withoutWrapper(list({ type: 'flannel', ipam: { ...ipam } }), ENV, 'cni-conf.json');
      return (final.plugins[0]!.ipam as JsonObject).routes;
    };
    const ours = [
      { dst: '10.244.0.0/16', gw: '10.244.7.1' },
      { dst: 'fd00::/56', gw: 'fd00:0:0:7::1' },
    ];
    const user = [
      { dst: '192.0.2.0/24', gw: '10.244.7.9' },
      { dst: '198.51.100.0/24', scope: 253 },
    ];
    assert.deepEqual(routesOf({ routes: user }), [...user, ...ours]);
    assert.deepEqual(routesOf({ type: 'other-ipam' }), [{ dst: '10.244.0.0/16' }, { dst: 'fd00::/56' }]);
  });

  it('is refused where the plugin would refuse it at each pod', () => {
    assert.throws(() => withoutWrapper(list({ type: 'flannel', delegate: { ipam: {} } }), ENV, 'cni-conf.json'), {
      code: 'WEFT_CNI_CONF_INVALID',
      message: /cni-conf\.json: 'delegate' dictionary must not have 'ipam' field/,
    });
  });
});

describe('the file that the agent keeps', () => {
  const text = renderConf(list({ type: 'bridge', mtu: 1472 }, { type: 'portmap' }), undefined);

  it('is a configuration list that says who keeps it', () => {
    const read = parseConfList(text, 'file');
    assert.deepEqual([read.name, read.cniVersion, read.rest.disableCheck], ['cbr0', '0.3.1', true]);
    assert.equal(isWrittenByWeft(text), true);
    for (const other of ['', '{', '{"name":"cbr0","plugins":[{"type":"flannel"}]}', text.replace('"weft"', '"left"')]) {
      assert.equal(isWrittenByWeft(other), false, other);
    }
    assert.equal(renderConf(list({ type: 'bridge', mtu: 1472 }, { type: 'portmap' }), text), text);
  });

  it('undoes edits, and keeps plugins that others have added at the end', () => {
    const edited = JSON.parse(text);
    edited.plugins[0].mtu = 9000;
    edited.plugins.push({ type: 'istio-cni', kubernetes: {} });
    const repaired = JSON.parse(
      renderConf(list({ type: 'bridge', mtu: 1472 }, { type: 'portmap' }), JSON.stringify(edited)),
    );
    assert.deepEqual(repaired.plugins, [
      { type: 'bridge', mtu: 1472 },
      { type: 'portmap' },
      { type: 'istio-cni', kubernetes: {} },
    ]);
    // One that the template no longer has was the agent's, and goes.
    const without = JSON.parse(renderConf(list({ type: 'bridge', mtu: 1472 }), JSON.stringify(repaired)));
    assert.deepEqual(without.plugins, [
      { type: 'bridge', mtu: 1472 },
      { type: 'istio-cni', kubernetes: {} },
    ]);
  });

  it("takes nothing over from a file that was not the agent's", () => {
    const foreign = '{"name":"old","plugins":[{"type":"flannel"},{"type":"tuning"}]}';
    assert.equal(renderConf(list({ type: 'bridge', mtu: 1472 }, { type: 'portmap' }), foreign), text);
  });
});
