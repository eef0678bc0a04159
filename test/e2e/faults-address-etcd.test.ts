import { startEtcd } from './fault-store.ts';
import { addressFaults } from './faults-address.ts';

addressFaults('etcd', /Deadline exceeded after 5/, startEtcd);
