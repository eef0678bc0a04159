import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type FlanneldOptions, parseFlanneldOptions } from './flanneld-options.ts';
import { describeFlanneldOptions } from './shown-flanneld-options.ts';

function options(args: readonly string[]): FlanneldOptions {
  const result = parseFlanneldOptions(args, {});
  assert.ok(result.kind === 'run', result.kind);
  return result.options;
}

describe('shown options', () => {
  it('reads like the line of flannel', () => {
    const recorded =
      '{etcdEndpoints:http://127.0.0.1:4001,http://127.0.0.1:2379 etcdPrefix:/coreos.com/network etcdKeyfile: etcdCertfile: ' +
      'etcdCAFile: etcdUsername: etcdPassword: version:false kubeSubnetMgr:true kubeApiUrl: ' +
      'kubeAnnotationPrefix:flannel.alpha.coreos.com kubeConfigFile:/k iface:[] ifaceRegex:[] ipMasq:true ' +
      'ipMasqRandomFullyDisable:false ifaceCanReach: subnetFile:/s publicIP: publicIPv6: subnetLeaseRenewMargin:60 ' +
      'healthzIP:0.0.0.0 healthzPort:8081 iptablesResyncSeconds:5 iptablesForwardRules:true blackholeRoute:false ' +
      'netConfPath:/n setNodeNetworkUnavailable:true}';
    const flags = ['-kube-subnet-mgr', '-kubeconfig-file=/k', '-ip-masq', '-subnet-file=/s', '-healthz-port=8081'];
    const ours = describeFlanneldOptions(options([...flags, '-net-config-path=/n']));
    assert.ok(ours.startsWith(recorded.slice(0, -1)), ours);
    const line = describeFlanneldOptions(options(['-ip-masq', '-iface=eth0', '-iface=eth1', '-public-ip=192.0.2.7']));
    assert.ok(
      line.startsWith(
        '{etcdEndpoints:http://127.0.0.1:4001,http://127.0.0.1:2379 etcdPrefix:/coreos.com/network etcdKeyfile: ' +
          'etcdCertfile: etcdCAFile: etcdUsername: etcdPassword: ',
      ),
      line,
    );
    assert.match(line, / iface:\[eth0 eth1\] ifaceRegex:\[\] ipMasq:true .* publicIP:192\.0\.2\.7 publicIPv6: /);
  });

  it('shows every option of weft’s own', () => {
    const line = describeFlanneldOptions(options(['-live-reconfigure', '-probe=off']));
    for (const shown of ['liveReconfigure:true', 'probe:off', 'requireNodeAddress:false', 'notrackTunnel:false'])
      assert.ok(line.includes(` ${shown} `), line);
  });

  it('shows no secret', () => {
    const given = options([
      '-etcd-password=hunter2',
      '-etcd-endpoints=https://root:hunter2@e:2379',
      '-kube-api-url=https://u:hunter2@k',
    ]);
    const line = describeFlanneldOptions(given);
    assert.doesNotMatch(line, /hunter2/);
    assert.match(line, /etcdPassword:<redacted>/);
    assert.match(line, /etcdEndpoints:https:\/\/<redacted>@e:2379 /);
  });
});
