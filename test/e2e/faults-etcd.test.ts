import { startEtcd } from './fault-store.ts';
import { faultTable } from './faults.ts';

faultTable('etcd', startEtcd);
