import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { recordStartupError } from '../../node-files/last-error.ts';
import { runPlugin } from './plugin.ts';
import type { Environment } from './request.ts';

const SUBNET_ENV =
  'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';
const DELEGATE_JSON =
  '{"cniVersion":"1.0.0","ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.0.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}';
const VERSIONS_1_1 = '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}';

interface Answer {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

let folder: string;
let plugins: string;
let dataDir: string;
let subnetFile: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-cni-'));
  [plugins, dataDir, subnetFile] = [
    join(folder, 'bin'),
    join(folder, 'state', 'flannel'),
    join(folder, 'run', 'subnet.env'),
  ];
  mkdirSync(plugins);
  mkdirSync(join(folder, 'run'));
  writeFileSync(subnetFile, SUBNET_ENV);
});
afterEach(() => rmSync(folder, { recursive: true }));

/**
 * A delegate in shell. It logs its command, container, interface and namespace with the input it got, then runs the case
 * of its command; without one it answers as a plugin that does not know the command.
 */
function installDelegate(cases: Readonly<Record<string, string>>, name = 'bridge'): void {
  const body = Object.entries(cases).map(([command, script]) => `${command}) ${script};;`);
  writeFileSync(
    join(plugins, name),
    `#!/bin/sh
input=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME [$CNI_NETNS] $input" >>'${folder}/log'
case $CNI_COMMAND in
${body.join('\n')}
*) echo '{"code":4,"msg":"unknown CNI_COMMAND: '$CNI_COMMAND'"}'; exit 1;;
esac
`,
  );
  chmodSync(join(plugins, name), 0o755);
}

/** What the delegate was started with, a line each, and forgotten. */
function delegateCalls(): string[] {
  const log = join(folder, 'log');
  if (!existsSync(log)) return [];
  const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
  rmSync(log);
  return lines;
}

const config = (more: object = {}): string =>
  JSON.stringify({ cniVersion: '1.0.0', name: 'cbr0', type: 'flannel', subnetFile, dataDir, ...more });

function call(command: string, input: string, env: Environment = {}): Answer {
  let [stdout, stderr] = ['', ''];
  const exitCode = runPlugin({
    env: {
      PATH: process.env.PATH,
      CNI_COMMAND: command,
      CNI_CONTAINERID: 'c1',
      CNI_IFNAME: 'eth0',
      CNI_NETNS: '/nowhere',
      CNI_PATH: `/nowhere-at-all:${plugins}`,
      ...env,
    },
    readInput: () => input,
    print: (text) => (stdout += text),
    warn: (text) => (stderr += text),
    about: () => 'CNI Plugin flannel version 1.2.3 (linux/amd64) commit abc',
  });
  return { exitCode, stdout, stderr };
}

/** The error object that was printed. */
function errorOf(answer: Answer): { code: number; msg: string; details?: string } {
  assert.equal(answer.exitCode, 1, answer.stdout);
  return JSON.parse(answer.stdout);
}

const saved = (id = 'c1'): string | undefined => {
  const path = join(dataDir, id);
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
};

const RESULT = '{"ips":[{"interface":2,"address":"10.244.0.2/24"}],"cniVersion":"1.0.0","dns":{}}';

describe('without work to do', () => {
  it('prints what it is when started by hand, to standard error', () => {
    for (const command of ['', undefined]) {
      assert.deepEqual(call('', 'not read', { CNI_COMMAND: command }), {
        exitCode: 0,
        stdout: '',
        stderr:
          'CNI Plugin flannel version 1.2.3 (linux/amd64) commit abc\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n',
      });
    }
  });

  it('VERSION prints the versions, to the byte', () => {
    assert.deepEqual(call('VERSION', 'not read', { CNI_PATH: undefined }), {
      exitCode: 0,
      stdout: '{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n',
      stderr: '',
    });
  });

  it('CHECK succeeds from 0.4.0 on', () => {
    for (const cniVersion of ['0.4.0', '1.0.0', '1.1.0']) {
      assert.deepEqual(call('CHECK', config({ cniVersion })), { exitCode: 0, stdout: '', stderr: '' });
    }
    for (const cniVersion of ['', '0.1.0', '0.3.1']) {
      assert.deepEqual(errorOf(call('CHECK', config({ cniVersion }))), {
        code: 1,
        msg: 'config version does not allow CHECK',
      });
    }
  });
});

describe('a request that cannot be used', () => {
  it('is answered with an error object, indented, in the order of the CNI library', () => {
    assert.equal(
      call('ADD', config(), { CNI_CONTAINERID: 'a/../b' }).stdout,
      '{\n    "code": 4,\n    "msg": "invalid characters in containerID",\n    "details": "a/../b"\n}',
    );
  });

  it('has code 4 for the environment', () => {
    const all = ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'];
    const none = Object.fromEntries(all.map((name) => [name, undefined]));
    for (const [command, needed] of [
      ['ADD', all],
      ['CHECK', all],
      ['DEL', all.filter((name) => name !== 'CNI_NETNS')],
      ['GC', ['CNI_PATH']],
      ['STATUS', ['CNI_PATH']],
    ] as const) {
      assert.deepEqual(errorOf(call(command, config(), none)), {
        code: 4,
        msg: `required env variables [${needed.join(',')}] missing`,
      });
    }
    for (const [env, msg] of [
      [{ CNI_CONTAINERID: '.hidden' }, 'invalid characters in containerID'],
      [{ CNI_IFNAME: 'a'.repeat(16) }, 'interface name is too long'],
      [{ CNI_IFNAME: '..' }, 'interface name is . or ..'],
      [{ CNI_IFNAME: 'a/b' }, 'interface name contains / or : or whitespace characters'],
      [{ CNI_IFNAME: 'a b' }, 'interface name contains / or : or whitespace characters'],
    ] as const) {
      const error = errorOf(call('ADD', config(), env));
      assert.deepEqual([error.code, error.msg], [4, msg]);
    }
    assert.deepEqual(errorOf(call('FROB', config())), { code: 4, msg: 'unknown CNI_COMMAND: FROB' });
  });

  it('has code 5, 6, 7 for the input', () => {
    const unreadable = runPlugin({
      env: { CNI_COMMAND: 'STATUS', CNI_PATH: plugins },
      readInput: () => {
        throw Object.assign(new Error('EISDIR: illegal'), { code: 'EISDIR' });
      },
      print: (text) => assert.deepEqual(JSON.parse(text), { code: 5, msg: 'error reading from stdin: is a directory' }),
      warn: assert.fail,
      about: () => '',
    });
    assert.equal(unreadable, 1);
    assert.equal(errorOf(call('ADD', '{"name":')).code, 6);
    assert.deepEqual(errorOf(call('ADD', config({ name: '' }))), { code: 7, msg: 'missing network name' });
    assert.deepEqual(errorOf(call('ADD', config({ name: 'a b' }))), {
      code: 7,
      msg: 'invalid characters found in network name',
      details: 'a b',
    });
    assert.equal(errorOf(call('GC', config({ cniVersion: 'one' }))).code, 6);
  });

  it('has code 1 for a version that the plugin or the command does not know', () => {
    assert.deepEqual(errorOf(call('ADD', config({ cniVersion: '1.2.0' }))), {
      code: 1,
      msg: 'incompatible CNI versions',
      details: 'config is "1.2.0", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]',
    });
    assert.equal(errorOf(call('DEL', config({ cniVersion: '0.3' }))).msg, 'incompatible CNI versions');
    for (const command of ['GC', 'STATUS']) {
      for (const cniVersion of ['', '0.4.0', '1.0.0']) {
        assert.deepEqual(errorOf(call(command, config({ cniVersion }))), {
          code: 1,
          msg: `config version does not allow ${command}`,
        });
      }
      assert.equal(
        errorOf(call(command, config({ cniVersion: '2.0.0' }))).msg,
        `plugin version does not allow ${command}`,
      );
    }
  });

  it("has code 8 for the plugin's own network namespace, before anything is done", () => {
    installDelegate({ ADD: `echo '${RESULT}'`, DEL: ':' });
    const own = { CNI_NETNS: '/proc/self/ns/net' };
    assert.equal(errorOf(call('ADD', config(), own)).code, 8);
    assert.equal(saved(), undefined);
    assert.equal(call('ADD', config(), { ...own, CNI_NETNS_OVERRIDE: '1' }).exitCode, 0);
    assert.equal(errorOf(call('DEL', config(), own)).code, 8);
    assert.equal(saved(), DELEGATE_JSON);
    assert.equal(call('DEL', config(), { ...own, CNI_NETNS_OVERRIDE: 'true' }).exitCode, 0);
    assert.deepEqual(
      delegateCalls().map((line) => line.split(' ')[0]),
      ['ADD', 'DEL'],
    );
  });
});

describe('ADD', () => {
  it('saves the configuration, runs the delegate with it and hands its result on', () => {
    installDelegate({ ADD: `test -s '${dataDir}/c1' && echo '${RESULT}' && echo hello >&2` });
    const answer = call('ADD', config());
    assert.deepEqual(answer, {
      exitCode: 0,
      stdout:
        '{\n    "cniVersion": "1.0.0",\n    "ips": [\n        {\n            "address": "10.244.0.2/24",\n            "interface": 2\n        }\n    ]\n}',
      stderr: `delegateAdd: netconf sent to delegate plugin:\n${DELEGATE_JSON}\nhello\n`,
    });
    assert.deepEqual(delegateCalls(), [`ADD c1 eth0 [/nowhere] ${DELEGATE_JSON}`]);
    assert.equal(saved(), DELEGATE_JSON);
    assert.deepEqual(readdirSync(dataDir), ['c1', 'c1:eth0']);
    assert.equal(statSync(join(dataDir, 'c1')).mode & 0o777, 0o600);
    for (const made of [dataDir, join(folder, 'state')]) assert.equal(statSync(made).mode & 0o777, 0o700);
  });

  it('does not mind a delegate that leaves its input unread', () => {
    writeFileSync(join(plugins, 'bridge'), `#!/bin/sh\necho '${RESULT}'\n`, { mode: 0o755 });
    // More than a pipe holds: writing it fails once the delegate is gone.
    assert.equal(call('ADD', config({ delegate: { long: 'x'.repeat(1_000_000) } })).exitCode, 0);
    writeFileSync(join(plugins, 'bridge'), `#!/bin/sh\necho '{"code":7,"msg":"no"}'; exit 1\n`, { mode: 0o755 });
    assert.equal(errorOf(call('ADD', config({ delegate: { long: 'x'.repeat(1_000_000) } }))).msg, 'no');
  });

  it('gives a result without a version that of the configuration, and leaves older results as they are', () => {
    installDelegate({ ADD: `echo null` });
    assert.equal(call('ADD', config()).stdout, '{\n    "cniVersion": "1.0.0"\n}');
    installDelegate({ ADD: `echo '{"ips":[],"dns":{"domain":"a.b"}}'` });
    assert.deepEqual(JSON.parse(call('ADD', config()).stdout), {
      cniVersion: '1.0.0',
      dns: { domain: 'a.b' },
      ips: [],
    });
    const old = '{ "cniVersion": "0.3.1", "routes": [], "dns": {} }';
    installDelegate({ ADD: `printf '%s' '${old}'` });
    assert.equal(call('ADD', config({ cniVersion: '0.3.1' })).stdout, old);
    installDelegate({ ADD: `echo '{"ip4":{"ip":"10.244.0.2/24"},"dns":{}}'` });
    assert.equal(
      call('ADD', config({ cniVersion: '' })).stdout,
      '{\n    "cniVersion": "0.1.0",\n    "ip4": {\n        "ip": "10.244.0.2/24"\n    },\n    "dns": {}\n}',
    );
  });

  it("passes the delegate's error on unchanged, has it clean up, and leaves nothing", () => {
    installDelegate({
      ADD: `echo '{"code":11,"msg":"no more addresses","details":"in 10.244.0.0/24"}'; exit 1`,
      DEL: ':',
    });
    assert.deepEqual(errorOf(call('ADD', config())), {
      code: 11,
      msg: 'no more addresses',
      details: 'in 10.244.0.0/24',
    });
    assert.deepEqual(delegateCalls(), [
      `ADD c1 eth0 [/nowhere] ${DELEGATE_JSON}`,
      `DEL c1 eth0 [/nowhere] ${DELEGATE_JSON}`,
    ]);
    assert.deepEqual(readdirSync(dataDir), []);
  });

  it('keeps the file when the delegate cannot clean up, for the DEL to come', () => {
    const fail = (text: string): string => `echo '{"code":999,"msg":"${text}"}'; exit 1`;
    installDelegate({ ADD: fail('add'), DEL: fail('del') });
    const answer = call('ADD', config());
    assert.equal(errorOf(answer).msg, 'add');
    assert.match(answer.stderr, /could not be undone: del/);
    assert.equal(saved(), DELEGATE_JSON);
    assert.deepEqual(readdirSync(dataDir), ['c1', 'c1:eth0']);
  });

  it('leaves what an earlier ADD of the container saved, when a second one fails', () => {
    installDelegate({ ADD: `echo '${RESULT}'`, DEL: ':' });
    assert.equal(call('ADD', config()).exitCode, 0);
    writeFileSync(subnetFile, SUBNET_ENV.replace('1472', '1400'));
    installDelegate({ ADD: 'exit 3', DEL: ':' });
    assert.equal(errorOf(call('ADD', config())).msg, 'netplugin failed with no error message: exit status 3');
    assert.equal(saved(), DELEGATE_JSON);
    assert.deepEqual(
      delegateCalls().map((line) => line.split(' ')[0]),
      ['ADD', 'ADD'],
    );
  });

  it('replaces an unreadable leftover', () => {
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(join(dataDir, 'c1'), '');
    installDelegate({ ADD: 'exit 1', DEL: ':' });
    assert.equal(call('ADD', config()).exitCode, 1);
    assert.deepEqual(readdirSync(dataDir), []);
  });

  it('reports a delegate that does not speak CNI, or is killed', () => {
    for (const [script, msg] of [
      ["echo 'oh, no' >&2; exit 1", /^netplugin failed: "oh, no\\n"$/],
      ['echo oops; exit 1', /^netplugin failed but its diagnostic message is no JSON object: "oops\\n"$/],
      ['kill -9 $$', /^netplugin failed with no error message: signal: SIGKILL$/],
      ["echo '[]'", /^failed to delegate add: failed to unmarshal raw result: it is no object$/],
      ['echo "{"', /^failed to delegate add: failed to unmarshal raw result: /],
    ] as const) {
      installDelegate({ ADD: script, DEL: ':' });
      const error = errorOf(call('ADD', config()));
      assert.equal(error.code, 999);
      assert.match(error.msg, msg);
      assert.deepEqual(readdirSync(dataDir), [], script);
    }
    installDelegate({ ADD: "echo '{}'; exit 1", DEL: ':' });
    assert.equal(errorOf(call('ADD', config())).msg, 'netplugin failed with no error message: exit status 1');
    writeFileSync(join(plugins, 'bridge'), '#!/no/such/interpreter\n', { mode: 0o755 });
    assert.match(
      errorOf(call('ADD', config())).msg,
      /^could not run the plugin .*\/bin\/bridge: no such file or directory$/,
    );
  });

  it('names a delegate that is missing, the folders, and what to do; nothing is saved', () => {
    const error = errorOf(call('ADD', config(), { CNI_PATH: '/opt/none/bin:/opt/other' }));
    assert.equal(error.code, 999);
    assert.ok(
      error.msg.startsWith(
        'failed to delegate add: failed to find plugin "bridge" in path [/opt/none/bin /opt/other]. ',
      ),
    );
    assert.match(
      error.msg,
      /containernetworking-plugins \(cp \/usr\/lib\/cni\/\* \/opt\/none\/bin\/\)|copy the plugins from there into \/opt\/none\/bin/,
    );
    assert.match(
      errorOf(call('ADD', config({ delegate: { type: 'my-own' } }))).msg,
      /in path \[.*\]\. Install that CNI plugin/,
    );
    assert.match(errorOf(call('ADD', config({ delegate: { type: '' } }))).msg, /no plugin name provided$/);
    assert.match(errorOf(call('ADD', config({ delegate: { type: 'a/b' } }))).msg, /invalid plugin name: a\/b$/);
    assert.equal(existsSync(dataDir), false);
  });

  it('starts no program by a path: a type with a slash is refused, also where such a program is', () => {
    installDelegate({ ADD: 'true' }, '../evil');
    for (const type of ['../evil', './../evil', join(folder, 'evil')]) {
      const { msg } = errorOf(call('ADD', config({ delegate: { type } })));
      assert.ok(msg.endsWith(`invalid plugin name: ${type}`), msg);
    }
    assert.equal(existsSync(join(folder, 'log')), false);
    assert.equal(existsSync(dataDir), false);
  });

  it('asks to be tried again as long as there is no subnet.env, with why flanneld could not start', () => {
    rmSync(subnetFile);
    const text = `failed to load flannel 'subnet.env' file: open ${subnetFile}: no such file or directory. Check the flannel pod log for this node.`;
    assert.deepEqual(errorOf(call('ADD', config())), { code: 11, msg: text });
    recordStartupError(join(folder, 'run'), 'no /dev/net/tun [WEFT_TUN_MISSING]');
    const error = errorOf(call('ADD', config()));
    assert.equal(error.code, 11);
    assert.ok(error.msg.startsWith(`${text} flanneld's last start-up error (20`), error.msg);
    assert.ok(error.msg.endsWith('Z): no /dev/net/tun [WEFT_TUN_MISSING]'), error.msg);
  });

  it('says what is wrong with subnet.env and with its own configuration', () => {
    writeFileSync(subnetFile, 'FLANNEL_MTU=1472\n');
    const error = errorOf(call('ADD', config()));
    assert.equal(error.code, 999);
    assert.ok(
      error.msg.startsWith(`failed to load flannel 'subnet.env' file: ${subnetFile} is missing FLANNEL_NETWORK, `),
    );
    writeFileSync(subnetFile, SUBNET_ENV);
    assert.deepEqual(errorOf(call('ADD', config({ delegate: { name: 'x' } }))), {
      code: 999,
      msg: "'delegate' dictionary must not have 'name' field, it'll be set by flannel",
    });
  });

  it('says when it cannot save, and starts no delegate then', () => {
    installDelegate({ ADD: `echo '${RESULT}'` });
    writeFileSync(join(folder, 'file'), '');
    assert.equal(errorOf(call('ADD', config({ dataDir: join(folder, 'file') }))).code, 999);
    assert.deepEqual(delegateCalls(), []);
  });
});

describe('DEL', () => {
  beforeEach(() => {
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(join(dataDir, 'c1'), DELEGATE_JSON);
  });

  it('runs the delegate with what was saved, without subnet.env, then forgets it; again is no error', () => {
    installDelegate({ DEL: ':' });
    rmSync(subnetFile);
    writeFileSync(join(dataDir, '.c1'), 'half a file of an ADD that was killed');
    const done = { exitCode: 0, stdout: '', stderr: '' };
    assert.deepEqual(call('DEL', config({ delegate: { type: 'other' } }), { CNI_NETNS: '' }), done);
    assert.deepEqual(delegateCalls(), [`DEL c1 eth0 [] ${DELEGATE_JSON}`]);
    assert.deepEqual(readdirSync(dataDir), []);
    assert.deepEqual(call('DEL', config()), done);
    rmSync(dataDir, { recursive: true });
    assert.deepEqual(call('DEL', config()), done);
    assert.deepEqual(delegateCalls(), []);
  });

  it('keeps the file when the delegate fails, so that a second try works', () => {
    installDelegate({ DEL: `echo '{"code":5,"msg":"busy"}'; exit 1` });
    assert.deepEqual(errorOf(call('DEL', config())), { code: 5, msg: 'busy' });
    assert.equal(saved(), DELEGATE_JSON);
    installDelegate({ DEL: ':' });
    assert.equal(call('DEL', config()).exitCode, 0);
    assert.equal(saved(), undefined);
  });

  it('keeps the file also when the delegate is gone, and says what to install', () => {
    const error = errorOf(call('DEL', config()));
    assert.ok(error.msg.startsWith('failed to delegate del: failed to find plugin "bridge" in path ['));
    assert.equal(saved(), DELEGATE_JSON);
  });

  it('does not hold a container up for a file that cannot be read; keeps it', () => {
    for (const text of ['', '{', '[]', '{"type":5}', '{"name":"cbr0"}']) {
      writeFileSync(join(dataDir, 'c1'), text);
      const answer = call('DEL', config());
      assert.deepEqual([answer.exitCode, answer.stdout], [0, ''], text);
      assert.match(answer.stderr, /^failed to parse netconf: /);
      assert.equal(saved(), text);
    }
  });
});

describe('several interfaces of one container', () => {
  const other = { CNI_IFNAME: 'net1' };
  const wanted = (mtu: number): string => config({ delegate: { mtu } });
  const done = { exitCode: 0, stdout: '', stderr: '' };

  beforeEach(() => installDelegate({ ADD: `echo '${RESULT}'`, DEL: ':', GC: ':' }));

  it('are each taken down with what they were added with, in either order, and again is no error', () => {
    for (const order of [
      [{}, other],
      [other, {}],
    ]) {
      assert.equal(call('ADD', wanted(1400)).exitCode, 0);
      assert.equal(call('ADD', wanted(1300), other).exitCode, 0);
      delegateCalls();
      for (const env of order) {
        const mtu = env === other ? 1300 : 1400;
        assert.deepEqual(call('DEL', config(), env), done);
        const [line, ...more] = delegateCalls();
        assert.match(line!, new RegExp(`^DEL c1 ${env === other ? 'net1' : 'eth0'} .*"mtu":${mtu},`));
        assert.deepEqual(more, []);
        // A DEL that is sent again must not take the other one down.
        assert.deepEqual([call('DEL', config(), env), delegateCalls()], [done, []]);
      }
      assert.deepEqual(readdirSync(dataDir), []);
    }
  });

  it('keep the file by which flannel’s plugin could take the container down, until the last is gone', () => {
    call('ADD', wanted(1400), other);
    call('ADD', wanted(1300));
    assert.match(saved()!, /"mtu":1400,/);
    call('DEL', config(), other);
    assert.notEqual(saved(), undefined);
    call('DEL', config());
    assert.equal(saved(), undefined);
  });

  it('are taken down by the name that flannel’s plugin saved, whatever the interface', () => {
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(join(dataDir, 'c1'), DELEGATE_JSON);
    assert.deepEqual(call('DEL', config(), other), done);
    assert.deepEqual(delegateCalls(), [`DEL c1 net1 [/nowhere] ${DELEGATE_JSON}`]);
    assert.deepEqual(readdirSync(dataDir), []);
  });

  it('are collected one by one', () => {
    call('ADD', wanted(1400));
    call('ADD', wanted(1300), other);
    delegateCalls();
    const valid = [{ containerID: 'c1', ifname: 'eth0' }];
    const gc = config({ cniVersion: '1.1.0', 'cni.dev/valid-attachments': valid });
    assert.deepEqual(call('GC', gc), done);
    assert.match(delegateCalls()[0]!, /^DEL c1 net1 .*"mtu":1300,/);
    assert.deepEqual(readdirSync(dataDir), ['c1', 'c1:eth0']);
  });
});

describe('GC', () => {
  const gc = (valid: readonly string[] | undefined, more: object = {}): string =>
    config({
      cniVersion: '1.1.0',
      ...(valid && { 'cni.dev/valid-attachments': valid.map((id) => ({ containerID: id, ifname: 'eth0' })) }),
      ...more,
    });
  const save = (id: string, text = DELEGATE_JSON): void => writeFileSync(join(dataDir, id), text);

  beforeEach(() => mkdirSync(dataDir, { recursive: true }));

  it('takes down what the runtime does not list, of this network only, and hands the list on', () => {
    installDelegate({ DEL: ':', GC: ':' });
    for (const id of ['valid', 'stale-1', 'stale-2']) save(id);
    save('other-network', DELEGATE_JSON.replace('cbr0', 'cbr1'));
    save('unreadable', '{');
    assert.deepEqual(call('GC', gc(['valid'])), { exitCode: 0, stdout: '', stderr: '' });
    const [first, second, forwarded, ...rest] = delegateCalls();
    assert.equal(first, `DEL stale-1 eth0 [] ${DELEGATE_JSON}`);
    assert.equal(second, `DEL stale-2 eth0 [] ${DELEGATE_JSON}`);
    assert.ok(forwarded);
    assert.match(forwarded, /^GC /);
    const sent = JSON.parse(forwarded.slice(forwarded.indexOf('{')));
    assert.deepEqual(
      [sent['cni.dev/valid-attachments'], sent.type, sent.cniVersion],
      [[{ containerID: 'valid', ifname: 'eth0' }], 'bridge', '1.1.0'],
    );
    assert.deepEqual(rest, []);
    assert.deepEqual(readdirSync(dataDir).sort(), ['other-network', 'unreadable', 'valid']);
  });

  it('takes everything down when the list is empty, and nothing when there is no list', () => {
    installDelegate({ DEL: ':', GC: ':' });
    save('c1');
    const answer = call('GC', gc(undefined));
    assert.equal(answer.exitCode, 0);
    assert.match(answer.stderr, /lists no valid attachments/);
    assert.deepEqual([saved(), delegateCalls()], [DELEGATE_JSON, []]);
    assert.equal(call('GC', gc([])).exitCode, 0);
    assert.equal(saved(), undefined);
  });

  it('goes on after an error, keeps what failed and reports everything', () => {
    installDelegate({
      DEL: `test $CNI_CONTAINERID != b || { echo '{"code":5,"msg":"busy"}'; exit 1; }`,
      GC: 'exit 7',
      VERSION: `echo '${VERSIONS_1_1}'`,
    });
    for (const id of ['a', 'b', 'c']) save(id);
    assert.deepEqual(errorOf(call('GC', gc([]))), {
      code: 999,
      msg: 'failed to collect garbage: container b: busy; delegate: netplugin failed with no error message: exit status 7',
    });
    assert.deepEqual(readdirSync(dataDir), ['b']);
  });

  it('does not mind a delegate that is older than GC, a missing subnet.env or a missing directory', () => {
    installDelegate({ DEL: ':', VERSION: `echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'` });
    save('stale');
    assert.equal(call('GC', gc([])).exitCode, 0);
    rmSync(subnetFile);
    save('stale');
    assert.equal(call('GC', gc([])).exitCode, 0);
    assert.deepEqual(readdirSync(dataDir), []);
    rmSync(dataDir, { recursive: true });
    assert.equal(call('GC', gc([])).exitCode, 0);
  });
});

describe('STATUS', () => {
  const status = (more: object = {}): Answer => call('STATUS', config({ cniVersion: '1.1.0', ...more }));
  const ready = { exitCode: 0, stdout: '', stderr: '' };

  beforeEach(() => {
    installDelegate({ STATUS: ':' });
    installDelegate({}, 'host-local');
  });

  it('says ready when subnet.env, the delegate and its IPAM plugin are there', () => {
    assert.deepEqual(status(), ready);
    const [sent] = delegateCalls();
    assert.ok(sent);
    assert.match(sent, /^STATUS /);
    assert.equal(sent.slice(sent.indexOf('{')), DELEGATE_JSON.replace('1.0.0', '1.1.0'));
  });

  it("has code 50 until subnet.env is there, with flanneld's last start-up error", () => {
    rmSync(subnetFile);
    assert.match(
      errorOf(status()).msg,
      /^failed to load flannel 'subnet\.env' file: open .* Check the flannel pod log for this node\.$/,
    );
    recordStartupError(join(folder, 'run'), 'node h1 has no podCIDR [WEFT_KUBE_NODE]');
    const error = errorOf(status());
    assert.equal(error.code, 50);
    assert.ok(error.msg.endsWith('Z): node h1 has no podCIDR [WEFT_KUBE_NODE]'), error.msg);
    writeFileSync(subnetFile, SUBNET_ENV);
    assert.deepEqual(status(), ready);
  });

  it('has code 50 for a configuration or a plugin that would fail every ADD', () => {
    writeFileSync(subnetFile, 'FLANNEL_MTU=1\n');
    assert.equal(errorOf(status()).code, 50);
    writeFileSync(subnetFile, SUBNET_ENV);
    assert.equal(errorOf(status({ delegate: { ipam: {} } })).code, 50);
    for (const [more, name] of [
      [{ delegate: { type: 'ipvlan' } }, 'ipvlan'],
      [{ ipam: { type: 'dhcp' } }, 'dhcp'],
    ] as const) {
      const error = errorOf(status(more));
      assert.equal(error.code, 50);
      assert.ok(error.msg.startsWith(`failed to find plugin "${name}" in path [`), error.msg);
    }
  });

  it("hands the delegate's answer on", () => {
    for (const [code, expected] of [
      [50, 50],
      [51, 51],
      [999, 50],
    ]) {
      installDelegate({
        STATUS: `echo '{"code":${code},"msg":"addresses exhausted"}'; exit 1`,
        VERSION: `echo '${VERSIONS_1_1}'`,
      });
      assert.deepEqual(errorOf(status()), { code: expected, msg: 'addresses exhausted' });
    }
  });

  it('says when the delegate is too old for the configuration: its ADD would fail', () => {
    installDelegate({ VERSION: `echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}'` });
    const error = errorOf(status());
    assert.equal(error.code, 50);
    assert.match(
      error.msg,
      /bridge supports CNI 0\.4\.0, 1\.0\.0, and the network configuration has cniVersion 1\.1\.0\. Install newer/,
    );
  });
});
