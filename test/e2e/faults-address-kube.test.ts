import { startKube } from './fault-store.ts';
import { addressFaults } from './faults-address.ts';

addressFaults('Kubernetes', startKube);
