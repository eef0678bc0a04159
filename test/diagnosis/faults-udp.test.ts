import { proveAll } from './bed.ts';
import { UDP_FAULTS } from './faults-udp.ts';

proveAll('udp', UDP_FAULTS);
