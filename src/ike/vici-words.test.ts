import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAddr, parsePrefix } from '../ip/address.ts';
import { Secret } from '../secret.ts';
import { connectionName } from './ike.ts';
import { viciMessage } from './vici-message.ts';
import { connectionWords, tunnelsOf } from './vici-words.ts';

const ENDS = {
  ...{ local: parseAddr('192.168.0.1')!, remote: parseAddr('192.168.0.2')! },
  ...{ localSubnet: parsePrefix('10.244.1.0/24')!, remoteSubnet: parsePrefix('10.244.2.0/24')! },
};
const NAME = '192.168.0.1-10.244.1.0/24-10.244.2.0/24-192.168.0.2';
const CHILD = '10.244.1.0/24-10.244.2.0/24';

describe('what charon is told', () => {
  it('is flannel’s connection: names, algorithms, tunnel and policies that are the agent’s', () => {
    const settings = { presharedKey: new Secret('k'), espProposal: 'aes128gcm16', udpEncap: true };
    const connection = { ...ENDS, name: connectionName(ENDS) };
    assert.deepEqual(
      connectionWords(connection, settings),
      viciMessage({
        [NAME]: {
          ...{ version: '2', local_addrs: ['192.168.0.1'], remote_addrs: ['192.168.0.2'] },
          ...{ proposals: ['aes256-sha256-modp4096'], encap: 'yes', keyingtries: '0', dpd_delay: '30s' },
          ...{ local: { auth: 'psk' }, remote: { auth: 'psk' } },
          children: {
            [CHILD]: {
              ...{ local_ts: ['10.244.1.0/24'], remote_ts: ['10.244.2.0/24'], esp_proposals: ['aes128gcm16'] },
              ...{ mode: 'tunnel', reqid: '11', policies: 'no', start_action: 'start', close_action: 'trap' },
              ...{ dpd_action: 'restart', rekey_time: '1h' },
            },
          },
        },
      }),
    );
  });
});

describe('what charon says of its tunnels', () => {
  const association = (state: string, children: Readonly<Record<string, string>>) =>
    viciMessage({
      [NAME]: {
        state,
        'child-sas': Object.fromEntries(
          Object.entries(children).map(([child, childState]) => [
            child,
            { state: childState, 'bytes-in': '100', 'bytes-out': '7' },
          ]),
        ),
      },
    });
  const none = { receivedBytes: 0, sentBytes: 0 };

  it('is up with keys, also while they are renewed, and counts what all of them have carried', () => {
    const events = [association('ESTABLISHED', { 'c-1': 'REKEYED', 'c-2': 'INSTALLED' }), association('DELETING', {})];
    const tunnel = { isUp: true, isIdle: false, receivedBytes: 200, sentBytes: 14 };
    assert.deepEqual([...tunnelsOf(events)], [[NAME, tunnel]]);
  });

  it('is idle only when nothing is under way', () => {
    assert.deepEqual(tunnelsOf([association('CONNECTING', {})]).get(NAME), { isUp: false, isIdle: false, ...none });
    assert.deepEqual(tunnelsOf([association('ESTABLISHED', {})]).get(NAME), { isUp: false, isIdle: true, ...none });
    const [creating] = tunnelsOf([association('ESTABLISHED', { 'c-1': 'CREATED' })]).values();
    assert.deepEqual([creating?.isUp, creating?.isIdle], [false, false]);
    assert.equal(tunnelsOf([]).size, 0);
  });
});
