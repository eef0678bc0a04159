import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describeError, WeftError } from '../errors.ts';
import { checkBridgeNetfilter } from './bridge-netfilter.ts';

const IPV4 = '/proc/sys/net/bridge/bridge-nf-call-iptables';
const IPV6 = '/proc/sys/net/bridge/bridge-nf-call-ip6tables';

function reader(files: Record<string, string>): (path: string) => Promise<string | undefined> {
  return async (path) => files[path];
}

describe('checkBridgeNetfilter', () => {
  it('is content when the settings of the families in use are on', async () => {
    assert.deepEqual(await checkBridgeNetfilter([4], reader({ [IPV4]: '1\n' })), []);
    assert.deepEqual(await checkBridgeNetfilter([4, 6], reader({ [IPV4]: '1\n', [IPV6]: '1\n' })), []);
  });

  it('fails with flannel’s line and what to do', async () => {
    await assert.rejects(checkBridgeNetfilter([4, 6], reader({ [IPV4]: '1\n' })), (error: unknown) => {
      assert.ok(error instanceof WeftError && error.code === 'WEFT_BRIDGE_NETFILTER');
      assert.equal(error.message, `Failed to check br_netfilter: stat ${IPV6}: no such file or directory`);
      assert.match(describeError(error), /modprobe br_netfilter/);
      return true;
    });
  });

  it('warns when it is switched off', async () => {
    const [warning] = await checkBridgeNetfilter([4], reader({ [IPV4]: '0\n' }));
    assert.equal(warning?.path, IPV4);
    assert.match(warning?.message ?? '', /sysctl -w net\.bridge\.bridge-nf-call-iptables=1/);
  });
});
