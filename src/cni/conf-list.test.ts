import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FLANNEL_CONF_LIST, parseConfList, programsOf } from './conf-list.ts';

const parse = (value: unknown) => parseConfList(JSON.stringify(value), 'cni-conf.json');

describe('a CNI configuration list', () => {
  it('keeps everything that is in it', () => {
    const plugins = [{ type: 'flannel', delegate: { mtu: 1400 } }, { type: 'portmap' }];
    assert.deepEqual(parse({ name: 'cbr0', cniVersion: '1.0.0', plugins, disableCheck: true }), {
      name: 'cbr0',
      cniVersion: '1.0.0',
      plugins,
      rest: { disableCheck: true },
    });
  });

  it('may be the configuration of a single plugin', () => {
    assert.deepEqual(parse({ name: 'cbr0', type: 'flannel', delegate: { isDefaultGateway: true } }), {
      name: 'cbr0',
      cniVersion: '',
      plugins: [{ type: 'flannel', delegate: { isDefaultGateway: true } }],
      rest: {},
    });
  });

  it('names the file and the place that cannot be used', () => {
    for (const [text, what] of [
      ['{', /cni-conf\.json: .*\(line 1, column 2\)/],
      ['[]', /no JSON object/],
      ['{"plugins":[{"type":"flannel"}]}', /name: want/],
      ['{"name":"a","plugins":[]}', /plugins: want a list/],
      ['{"name":"a","plugins":[{"type":"flannel"},{}]}', /plugins\[1\]\.type: want/],
      ['{"name":"a","plugins":["flannel"]}', /plugins\[0\]: want an object/],
      ['{"name":"a","cniVersion":1,"plugins":[{"type":"flannel"}]}', /cniVersion: want/],
    ] as const) {
      assert.throws(() => parseConfList(text, 'cni-conf.json'), { code: 'WEFT_CNI_CONF_INVALID', message: what }, text);
    }
  });

  it("names the programs it starts, the delegate's in the place of the wrapper's", () => {
    assert.deepEqual(programsOf(FLANNEL_CONF_LIST, true), ['flannel', 'bridge', 'host-local', 'portmap']);
    assert.deepEqual(programsOf(FLANNEL_CONF_LIST, false), ['bridge', 'host-local', 'portmap']);
    const list = parse({
      name: 'a',
      plugins: [
        { type: 'flannel', delegate: { type: 'ipvlan' }, ipam: { type: 'my-ipam' } },
        { type: 'macvlan', ipam: { type: 'dhcp' } },
        { type: 'portmap' },
        { type: 'portmap' },
      ],
    });
    assert.deepEqual(programsOf(list, false), ['ipvlan', 'my-ipam', 'macvlan', 'dhcp', 'portmap']);
  });
});
