import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import { ConfKeeper, type ConfKeeperEvent } from './conf-keeper.ts';

const SUBNET_ENV =
  'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';

let folder: string;
let directory: string;
let templatePath: string;
let subnetFile: string;
let events: ConfKeeperEvent[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-conf-keeper-'));
  [directory, templatePath, subnetFile] = [
    join(folder, 'net.d'),
    join(folder, 'config', 'cni-conf.json'),
    join(folder, 'run', 'subnet.env'),
  ];
  for (const name of ['config', 'run']) mkdirSync(join(folder, name));
  writeFileSync(subnetFile, SUBNET_ENV);
  events = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

const open = (plugin: 'delegate' | 'flannel' = 'delegate'): ConfKeeper =>
  // The interval is longer than the test: what is seen is seen because the file system told of it.
  new ConfKeeper({
    directory,
    templatePath,
    subnetFile,
    plugin,
    intervalMs: 3_600_000,
    onEvent: (event) => events.push(event),
  });
const conf = () => JSON.parse(readFileSync(join(directory, '10-flannel.conflist'), 'utf8'));
const replace = (path: string, text: string): void => {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
};
const untilMtu = (mtu: number) =>
  eventually(`the configuration has the MTU ${mtu}`, async () => conf().plugins[0].mtu === mtu || undefined, 60_000);

describe('the keeper of the CNI configuration', () => {
  it('writes nothing before it is told that packets flow, then the whole file, into a folder it makes', async () => {
    await using keeper = open();
    assert.equal(await keeper.removeStale(), false);
    assert.equal(existsSync(directory), false);
    await keeper.publish();
    assert.deepEqual(
      conf().plugins.map(({ type }: { type: string }) => type),
      ['bridge', 'portmap'],
    );
    assert.deepEqual(readdirSync(directory), ['10-flannel.conflist']);
    assert.deepEqual(events, [{ type: 'written', path: keeper.path, before: 'nothing' }]);
    assert.equal(keeper.failure, undefined);
  });

  it('follows subnet.env and the template, and undoes what somebody does to the file', async () => {
    await using keeper = open();
    await keeper.publish();
    replace(subnetFile, SUBNET_ENV.replace('1472', '1400'));
    await untilMtu(1400);
    writeFileSync(keeper.path, readFileSync(keeper.path, 'utf8').replace('1400', '9000'));
    await untilMtu(1400);
    rmSync(keeper.path);
    await eventually('the file is back', async () => existsSync(keeper.path) || undefined);
    // As kubelet changes a mounted ConfigMap: files are links through a link that is replaced.
    const config = join(folder, 'config');
    mkdirSync(join(config, '..1'));
    writeFileSync(
      join(config, '..1', 'cni-conf.json'),
      '{"name":"cbr0","plugins":[{"type":"flannel","delegate":{"mtu":1300}}]}',
    );
    symlinkSync('..1', join(config, '..data_tmp'));
    symlinkSync('..data/cni-conf.json', templatePath);
    renameSync(join(config, '..data_tmp'), join(config, '..data'));
    await untilMtu(1300);
    assert.equal(conf().plugins.length, 1);
    assert.ok(
      events.every((event) => event.type === 'written'),
      JSON.stringify(events),
    );
  });

  it('keeps the last good file while the template is wrong, says so once, and goes on when it is right', async () => {
    await using keeper = open();
    await keeper.publish();
    const good = conf();
    replace(templatePath, '{"name":"cbr0","plugins":[]}');
    await eventually('the failure is known', async () => keeper.failure);
    assert.match(keeper.failure!, /cni-conf\.json: plugins: want a list.*WEFT_CNI_CONF_INVALID/);
    assert.deepEqual(conf(), good);
    await keeper.publish();
    replace(templatePath, '{"name":"cbr0","plugins":[{"type":"flannel","delegate":{"mtu":1200}}]}');
    await untilMtu(1200);
    await eventually('the failure is over', async () => keeper.failure === undefined || undefined);
    assert.equal(events.filter(({ type }) => type === 'failed').length, 1);
  });

  it('leaves the template as it is for pods that start with the plugin flannel', async () => {
    await using keeper = open('flannel');
    await keeper.publish();
    assert.deepEqual(conf().plugins[0], {
      type: 'flannel',
      delegate: { hairpinMode: true, isDefaultGateway: true },
    });
  });

  it("replaces flannel's own file, and names files that hide it", async () => {
    mkdirSync(directory);
    writeFileSync(join(directory, '10-flannel.conflist'), '{"name":"cbr0","plugins":[{"type":"flannel"}]}');
    writeFileSync(join(directory, '10-containerd-net.conflist'), '{}');
    await using keeper = open();
    await keeper.publish();
    assert.deepEqual(events, [
      { type: 'written', path: keeper.path, before: "somebody's" },
      { type: 'hidden', files: ['10-containerd-net.conflist'] },
    ]);
  });

  it('takes back what it wrote in an earlier boot, as long as there is no subnet.env, and nothing else', async () => {
    {
      await using keeper = open();
      await keeper.publish();
    }
    await using keeper = open();
    assert.equal(await keeper.removeStale(), false);
    rmSync(subnetFile);
    assert.equal(await keeper.removeStale(), true);
    assert.deepEqual(readdirSync(directory), []);
    writeFileSync(keeper.path, '{"name":"cbr0","plugins":[{"type":"flannel"}]}');
    assert.equal(await keeper.removeStale(), false);
  });

  it('says when it cannot write', async () => {
    writeFileSync(directory, '');
    await using keeper = open();
    await keeper.publish();
    assert.match(keeper.failure!, /WEFT_CNI_CONF_UNWRITABLE/);
  });
});
