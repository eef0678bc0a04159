/** Run in a network namespace: says after each change whether it was told of, as JSON. For kernel-changes.test.ts. */
import {
  NETLINK_ROUTE,
  NETLINK_XFRM,
  RTMGRP_IPV4_IFADDR,
  RTMGRP_IPV6_IFADDR,
  RTMGRP_LINK,
  XFRMGRP_EXPIRE,
  XFRMGRP_POLICY,
} from '../../src/linux/constants.ts';
import { KernelChanges } from '../../src/linux/kernel-changes.ts';
import { run } from '../../src/linux/run.ts';

const CHANGES = [
  [],
  ['ip', 'link', 'add', 'veth0', 'type', 'veth', 'peer', 'name', 'veth1'],
  ['ethtool', '-K', 'veth0', 'tx-tcp-segmentation', 'off'],
  ['ip', 'link', 'set', 'veth0', 'mtu', '1400'],
  ['ip', 'link', 'set', 'veth0', 'address', '02:00:00:00:00:07'],
  ['ip', 'address', 'add', '192.0.2.1/24', 'dev', 'veth0'],
  ['ip', 'address', 'add', '2001:db8::1/64', 'dev', 'veth0', 'nodad'],
  ['ip', 'link', 'set', 'veth0', 'name', 'veth7'],
  ['ip', 'route', 'add', 'blackhole', '198.51.100.0/24'],
  ['ip', 'xfrm', 'policy', 'add', 'dir', 'out', 'src', '192.0.2.0/24', 'dst', '0.0.0.0/0', 'action', 'block'],
  ['ip', 'xfrm', 'policy', 'setdefault', 'out', 'block'],
  ['ip', 'xfrm', 'policy', 'flush'],
  ['ip', 'link', 'delete', 'veth7'],
  [],
] as const;

using changes = new KernelChanges([
  { protocol: NETLINK_ROUTE, groups: RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR },
  { protocol: NETLINK_XFRM, groups: XFRMGRP_POLICY | XFRMGRP_EXPIRE },
]);
const told: (readonly [string, boolean])[] = [];
for (const change of CHANGES) {
  if (change.length > 0) await run(change);
  told.push([change.join(' '), changes.take()]);
}
// More than its queue holds.
const names = Array.from({ length: 2_000 }, (_, index) => `address add 203.0.113.${index % 250}/32 dev lo`);
await run(['ip', '-force', '-batch', '-'], { stdin: names.join('\n'), okExitCodes: 'any' });
let takes = 0;
while (changes.take()) takes++;
using deaf = new KernelChanges([{ protocol: 31, groups: 1 }]);
process.stdout.write(JSON.stringify({ told, takes, deaf: [deaf.take(), deaf.take()] }));
