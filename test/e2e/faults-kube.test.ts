import { startKube } from './fault-store.ts';
import { faultTable } from './faults.ts';

faultTable('Kubernetes', startKube);
