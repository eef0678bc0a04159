import type { KubeClient } from '../../src/lab/servers/kube-client.ts';
import type { Fault } from './bed.ts';

/** What can be done to an etcd, and to the clock by which the agent of host a lives. */
export interface StoreHands {
  readonly etcdctl: (...argv: readonly string[]) => Promise<unknown>;
  readonly stop: () => Promise<void>;
  readonly start: () => Promise<void>;
  /** As faketime has it: `-730d`. */
  readonly setClock: (offset: string) => void;
}

const SUBNETS = '/coreos.com/network/subnets';
const STRANGER = '192.168.77.99';
/** etcd has one entry for a subnet; with another subnet of IPv6 it is another entry. */
const SUBNET_OF_A = { subnet: 'A_DEV-24&fd00::-64', named: 'A_NET and fd00::/64' };

interface Entry {
  readonly subnet: string;
  readonly named: string;
  readonly address?: string;
}

export function storeFaults({ etcdctl, stop, start, setClock }: StoreHands): readonly Fault[] {
  /** Somebody else's entry. */
  const entry = (name: string, at: Fault['at'], { subnet, named, address = STRANGER }: Entry): Fault => ({
    name,
    inject: (bed) =>
      etcdctl('put', bed.filled('switch', `${SUBNETS}/${subnet}`), bed.filled('switch', `{"PublicIP":"${address}"}`)),
    heal: (bed) => etcdctl('del', bed.filled('switch', `${SUBNETS}/${subnet}`)),
    ...{ at, where: `${named} on ${address}`, faults: ['lease-entries'] },
  });
  return [
    entry('a host that claims the subnet of this one', 'a', SUBNET_OF_A),
    entry('two hosts that claim one subnet, from a third', 'c', SUBNET_OF_A),
    entry('a host with a subnet outside the network', 'a', { subnet: '10.99.7.0-24', named: '10.99.7.0/24' }),
    entry('a host with a subnet of another length', 'a', { subnet: '10.244.254.0-25', named: '10.244.254.0/25' }),
    entry('a host with the address of this one', 'a', {
      ...{ subnet: '10.244.254.0-24', named: '10.244.254.0/24', address: 'A_IP' },
    }),
    {
      name: 'a store that is away',
      inject: stop,
      heal: start,
      ...{ at: 'a', where: 'this host', faults: ['store'] },
    },
    {
      name: 'a clock that is two years behind',
      inject: async () => {
        setClock('-730d');
        // The agent has to connect anew.
        await stop();
        await start();
      },
      heal: async () => setClock('+0'),
      ...{ at: 'a', where: 'this host', faults: ['clock'] },
    },
  ];
}

const STRAY = 'stray';

/** Node objects that no host has made, as a wrong `--pod-cidr`, a restored backup or two controllers leave them. */
export function nodeFaults(admin: Pick<KubeClient, 'createNode' | 'deleteNode'>): readonly Fault[] {
  const node = (name: string, at: Fault['at'], podCidr: string): Fault => ({
    name,
    inject: (bed) => {
      const cidr = bed.filled('switch', podCidr);
      const annotations = {
        'flannel.alpha.coreos.com/kube-subnet-manager': 'true',
        'flannel.alpha.coreos.com/backend-type': 'udp',
        'flannel.alpha.coreos.com/backend-data': 'null',
        'flannel.alpha.coreos.com/public-ip': STRANGER,
      };
      return admin.createNode(STRAY, { podCidrs: [cidr], annotations });
    },
    heal: () => admin.deleteNode(STRAY),
    ...{ at, where: `${podCidr} on ${STRANGER}`, faults: ['lease-entries'] },
  });
  return [
    node('a Node with the podCIDR of this one', 'a', 'A_NET'),
    node('two Nodes with one podCIDR, from a third', 'c', 'A_NET'),
    node('a Node whose podCIDR is outside the network', 'a', '10.99.7.0/24'),
  ];
}
