import { startKube } from './fault-store.ts';
import { addressFaults } from './faults-address.ts';

addressFaults('Kubernetes', /no answer within 30000 ms/, startKube);
