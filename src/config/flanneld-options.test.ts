import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { flanneldUsage } from './flanneld-flags.ts';
import { type FlanneldOptions, parseFlanneldOptions } from './flanneld-options.ts';

type Env = Record<string, string>;

function options(args: string[], env: Env = {}): FlanneldOptions {
  const result = parseFlanneldOptions(args, env);
  assert.equal(result.kind, 'run', result.kind === 'error' ? result.error.message : result.kind);
  assert.ok(result.kind === 'run');
  return result.options;
}

function failure(args: string[], env: Env = {}): { message: string; exitCode: number; usage: string | undefined } {
  const result = parseFlanneldOptions(args, env);
  assert.ok(result.kind === 'error', result.kind);
  assert.equal(result.error.code, 'WEFT_USAGE');
  return { message: result.error.message, exitCode: result.exitCode, usage: result.usage };
}

describe('flanneld options: defaults', () => {
  it("are flannel's, and weft's own beside them", () => {
    assert.deepEqual(options([]), {
      etcdEndpoints: ['http://127.0.0.1:4001', 'http://127.0.0.1:2379'],
      etcdPrefix: '/coreos.com/network',
      etcdKeyFile: '',
      etcdCertFile: '',
      etcdCaFile: '',
      etcdUsername: '',
      etcdPassword: '',
      iface: [],
      ifaceRegex: [],
      ifaceCanReach: undefined,
      ifaceElseDefault: false,
      ifaceAllowLoopback: false,
      ifaceFromNodeIp: false,
      explainIface: false,
      subnetFile: '/run/flannel/subnet.env',
      publicIp: undefined,
      publicIpv6: undefined,
      subnetLeaseRenewMarginMinutes: 60,
      ipMasq: false,
      ipMasqFullyRandomDisable: false,
      subnetManager: 'etcd',
      localStore: '/var/lib/weft/subnets.db',
      kubeApiUrl: '',
      kubeAnnotationPrefix: 'flannel.alpha.coreos.com',
      kubeconfigFile: '',
      netConfigPath: '/etc/kube-flannel/net-conf.json',
      setNodeNetworkUnavailable: true,
      healthzIp: '0.0.0.0',
      healthzPort: 0,
      iptablesResyncSeconds: 5,
      iptablesForwardRules: true,
      ipBlackholeRoute: false,
      skipBrNetfilterCheck: false,
      sourceCheck: 'loose',
      destinationCheck: 'loose',
      fastPath: 'auto',
      fastPathIn: 'auto',
      fastPathDir: '/sys/fs/bpf/weft',
      notrackTunnel: false,
      liveReconfigure: false,
      requireNodeAddress: false,
      cniConfDir: '',
      cniConfTemplate: '/etc/kube-flannel/cni-conf.json',
      cniConfPlugin: 'delegate',
      apiSocket: '/run/flannel/weft.sock',
      apiListen: undefined,
      logFormat: 'text',
      verbosity: 0,
      vmodule: [],
      logBacktraceAt: '',
      wireguardKeyFile: '/run/flannel/wgkey',
      nodeName: '',
      podName: '',
      podNamespace: '',
      probe: 'on',
      eventQueueDepth: 5000,
      contWhenCacheNotReady: false,
    });
  });

  it('are frozen', () => {
    const frozen = options(['-iface=eth0', '-vmodule=a=1']);
    assert.ok(Object.isFrozen(frozen) && Object.isFrozen(frozen.iface) && Object.isFrozen(frozen.vmodule));
  });
});

describe('flanneld options: command line', () => {
  it('takes the flags of kube-flannel.yml', () => {
    const given = options(['--ip-masq', '--kube-subnet-mgr', '--healthz-port=8081'], {
      POD_NAME: 'kube-flannel-ds-x',
      POD_NAMESPACE: 'kube-flannel',
      EVENT_QUEUE_DEPTH: '5000',
      CONT_WHEN_CACHE_NOT_READY: 'false',
    });
    assert.equal(given.ipMasq, true);
    assert.equal(given.subnetManager, 'kube');
    assert.equal(given.healthzPort, 8081);
    assert.equal(given.podName, 'kube-flannel-ds-x');
    assert.equal(given.contWhenCacheNotReady, false);
  });

  it('reads lists, addresses and patterns', () => {
    const given = options([
      '-iface',
      'eth0',
      '-iface=10.0.0.1',
      '-iface-regex=^en.*',
      '-iface-can-reach=fd00::1',
      '-public-ip=192.0.2.7',
      '-public-ipv6=2001:db8::7',
      '-etcd-endpoints=http://a:2379, https://b:2379,',
      '-vmodule=peer=2,table*=3',
      '-v=10',
      '-log_backtrace_at=main.ts:7',
    ]);
    assert.deepEqual(given.iface, ['eth0', '10.0.0.1']);
    assert.ok(given.ifaceRegex[0]?.test('enp3s0'));
    assert.equal(given.ifaceCanReach, parseIpv6('fd00::1'));
    assert.equal(given.publicIp, parseIpv4('192.0.2.7'));
    assert.equal(given.publicIpv6, parseIpv6('2001:db8::7'));
    assert.deepEqual(given.etcdEndpoints, ['http://a:2379', 'https://b:2379']);
    assert.deepEqual(given.vmodule, [
      { pattern: 'peer', level: 2 },
      { pattern: 'table*', level: 3 },
    ]);
    assert.equal(given.verbosity, 10);
    assert.equal(given.logBacktraceAt, 'main.ts:7');
  });

  it('takes an empty value for one that is not given, in lists too', () => {
    const texts = [
      ...['etcd-endpoints', 'etcd-keyfile', 'etcd-certfile', 'etcd-cafile', 'etcd-username', 'etcd-password'],
      ...['iface-can-reach', 'subnet-file', 'public-ip', 'public-ipv6', 'kube-api-url', 'kube-annotation-prefix'],
      ...['kubeconfig-file', 'net-config-path', 'vmodule', 'log_backtrace_at', 'subnet-mgr', 'local-store'],
      ...[
        'source-check',
        'fast-path',
        'fast-path-in',
        'fast-path-dir',
        'log-format',
        'cni-conf-dir',
        'cni-conf-template',
        'cni-conf-plugin',
      ],
    ];
    const defaults = options([]);
    for (const name of texts) assert.deepEqual(options([`-${name}=`]), defaults, name);
    assert.deepEqual(options(['-etcd-endpoints=, ,']), defaults);
    assert.deepEqual(options(['-etcd-endpoints=,http://a:1,,http://b:1,']).etcdEndpoints, ['http://a:1', 'http://b:1']);
    const { iface, ifaceRegex, ifaceElseDefault } = options(['--iface=', '-iface', 'eth1', '-iface-regex', '']);
    assert.deepEqual([iface, ifaceRegex, ifaceElseDefault], [['eth1'], [], true]);
    // It is a value all the same: of the command line, which wins over the environment.
    assert.deepEqual(options(['-iface='], { FLANNELD_IFACE: 'eth1' }).iface, []);
  });

  it('compares public addresses with those of Nodes only where there are Nodes', () => {
    assert.equal(options(['-kube-subnet-mgr', '-require-node-address']).requireNodeAddress, true);
    const refused = parseFlanneldOptions(['-require-node-address'], {});
    assert.ok(refused.kind === 'error');
    assert.match(
      refused.error.message,
      /-require-node-address needs Kubernetes: the subnet manager etcd knows no nodes/,
    );
  });

  it('chooses the subnet manager', () => {
    assert.equal(options(['-subnet-mgr=local']).subnetManager, 'local');
    assert.equal(options(['-kube-subnet-mgr', '-subnet-mgr=kube']).subnetManager, 'kube');
    assert.equal(options([]).subnetManager, 'etcd');
    assert.equal(options(['-kube-subnet-mgr']).subnetManager, 'kube');
  });

  it('reads where the API is served', () => {
    assert.equal(options(['-subnet-file=/run/other/subnet.env']).apiSocket, '/run/other/weft.sock');
    assert.equal(options(['-api-socket=/tmp/a.sock']).apiSocket, '/tmp/a.sock');
    assert.equal(options(['-api-socket=b.sock']).apiSocket, '/run/flannel/b.sock');
    assert.equal(options(['-api-socket=']).apiSocket, '');
    const listen = (text: string) => options([`-api-listen=${text}`, '-api-token-file=/t']).apiListen;
    assert.deepEqual(listen('127.0.0.1:8287'), { address: '127.0.0.1', port: 8287, tokenFile: '/t' });
    assert.deepEqual(listen(':8287'), { address: '', port: 8287, tokenFile: '/t' });
    assert.deepEqual(listen('[fd00::1]:1'), { address: 'fd00::1', port: 1, tokenFile: '/t' });
    assert.match(failure(['-api-listen=:8287']).message, /-api-listen needs -api-token-file/);
    for (const wrong of ['8287', 'localhost:8287', '127.0.0.1:0', '127.0.0.1:65536', 'fd00::1:8287', '127.0.0.1']) {
      assert.match(
        failure([`-api-listen=${wrong}`, '-api-token-file=/t']).message,
        /-api-listen is ".*", must be/,
        wrong,
      );
    }
    const lone = parseFlanneldOptions(['-api-token-file=/t'], {});
    assert.ok(lone.kind === 'run');
    assert.match(lone.warnings.join(), /no effect without -api-listen/);
  });

  it('prints help and version', () => {
    const help = parseFlanneldOptions(['--help'], {});
    assert.ok(help.kind === 'help');
    assert.ok(help.text.startsWith('Usage: flanneld [OPTION]...\n  -api-listen address:port\n'));
    assert.equal(parseFlanneldOptions(['-version'], {}).kind, 'version');
    assert.equal(parseFlanneldOptions(['-version=false'], {}).kind, 'run');
  });

  it("lists all of flannel's flags in the usage text", () => {
    const flannels =
      'etcd-endpoints etcd-prefix etcd-keyfile etcd-certfile etcd-cafile etcd-username etcd-password iface iface-regex ' +
      'iface-can-reach subnet-file public-ip public-ipv6 subnet-lease-renew-margin ip-masq ip-masq-fully-random-disable ' +
      'kube-subnet-mgr kube-api-url kube-annotation-prefix kubeconfig-file version healthz-ip healthz-port iptables-resync ' +
      'iptables-forward-rules ip-blackhole-route net-config-path set-node-network-unavailable v vmodule log_backtrace_at';
    const usage = flanneldUsage();
    for (const name of flannels.split(' ')) assert.match(usage, new RegExp(`^  -${name}( \\S+)?$`, 'm'), name);
    assert.match(usage, /^ {2}-subnet-lease-renew-margin minutes\n {4}\t.* \(default 60\)$/m);
  });
});

describe('flanneld options: environment', () => {
  it('gives what the command line does not', () => {
    const env = {
      FLANNELD_ETCD_ENDPOINTS: 'http://e:1',
      FLANNELD_IFACE: 'a,b',
      FLANNELD_V: '3',
      FLANNELD_IP_MASQ: 'true',
      FLANNELD_LOG_BACKTRACE_AT: 'a.ts:1',
      FLANNELD_SUBNET_MGR: 'local',
      FLANNELD_HEALTHZ_PORT: '',
    };
    const given = options(['-v=4'], env);
    assert.deepEqual(given.etcdEndpoints, ['http://e:1']);
    assert.deepEqual(given.iface, ['a,b']);
    assert.equal(given.verbosity, 4);
    assert.equal(given.ipMasq, true);
    assert.equal(given.logBacktraceAt, 'a.ts:1');
    assert.equal(given.subnetManager, 'local');
    assert.equal(given.healthzPort, 0);
  });

  it('does not ask for the version', () => {
    assert.equal(parseFlanneldOptions([], { FLANNELD_VERSION: 'true' }).kind, 'run');
  });

  it('refuses what cannot be read, all of it at once, where flannel would take 0', () => {
    const { message, exitCode } = failure([], { FLANNELD_IPTABLES_RESYNC: 'abc', FLANNELD_IP_MASQ: 'yes' });
    assert.equal(exitCode, 2);
    assert.match(message, /FLANNELD_IPTABLES_RESYNC: invalid value "abc" for flag -iptables-resync: parse error/);
    assert.match(message, /FLANNELD_IP_MASQ: invalid boolean value "yes"/);
  });

  it('keeps the variables that are no flags', () => {
    const given = options([], {
      NODE_NAME: 'n1',
      EVENT_QUEUE_DEPTH: '-3',
      CONT_WHEN_CACHE_NOT_READY: 'true',
    });
    assert.equal(given.nodeName, 'n1');
    assert.equal(given.eventQueueDepth, 5000);
    assert.equal(given.contWhenCacheNotReady, true);
    assert.equal(options([], { EVENT_QUEUE_DEPTH: '70' }).eventQueueDepth, 70);
    assert.equal(options([], { EVENT_QUEUE_DEPTH: 'many' }).eventQueueDepth, 5000);
    assert.match(
      failure(['-kube-subnet-mgr'], { EVENT_QUEUE_DEPTH: 'many' }).message,
      /EVENT_QUEUE_DEPTH=many format error/,
    );
  });
});

describe('flanneld options: refused', () => {
  it('an unknown or malformed flag, with usage and exit code 2', () => {
    const malformed = [['-v'], ['-v=x'], ['-v='], ['-ip-masq='], ['-source-check=maybe'], ['-vmodule=x']];
    for (const args of [['-bogus'], ['--ip-masq', 'true'], ...malformed]) {
      const { message, exitCode, usage } = failure(args);
      assert.equal(exitCode, 2);
      assert.match(usage ?? '', /^Usage: flanneld \[OPTION\]\.\.\.\n/);
      assert.match(message, /^cannot read the command line: /);
    }
    assert.match(failure(['-ip-masq', 'true', '-v=1']).message, /"true" is not a flag, and nothing after it/);
  });

  const nonsense: [string[], RegExp][] = [
    [['-subnet-lease-renew-margin=0'], /Invalid subnet-lease-renew-margin option, out of acceptable range \(is 0/],
    [['-subnet-lease-renew-margin=1440'], /Invalid subnet-lease-renew-margin option, out of acceptable range/],
    [['-iptables-resync=0'], /-iptables-resync is 0, must be 1 to/],
    [['-healthz-port=65536'], /-healthz-port is 65536, must be 0 to 65535/],
    [['-public-ip=eth0'], /invalid public IP address: eth0/],
    [['-public-ipv6=10.0.0.1'], /invalid public IPv6 address: 10\.0\.0\.1/],
    [['-iface-can-reach=example'], /invalid IP address: example \(-iface-can-reach\)/],
    [['-iface-regex=('], /-iface-regex "\(" is not a regular expression/],
    [['-kube-subnet-mgr', '-subnet-mgr=etcd'], /-kube-subnet-mgr and -subnet-mgr=etcd contradict each other/],
  ];
  for (const [args, expected] of nonsense) {
    it(`${args.join(' ')}, with exit code 1`, () => {
      const { message, exitCode, usage } = failure(args);
      assert.equal(exitCode, 1);
      assert.equal(usage, undefined);
      assert.match(message, expected);
    });
  }

  it('all of it together', () => {
    const { message } = failure(['-healthz-port=-1', '-public-ip=x', '-iptables-resync=-5']);
    assert.match(message, /invalid public IP address: x .*-healthz-port is -1.*-iptables-resync is -5/);
  });
});

describe('flanneld options: warnings', () => {
  it('warns of a certificate without its key', () => {
    const result = parseFlanneldOptions(['-etcd-certfile=/c'], {});
    assert.ok(result.kind === 'run');
    assert.match(result.warnings.join(), /-etcd-certfile has no effect without -etcd-keyfile/);
  });
});
