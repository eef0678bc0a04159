import { proveAll } from './bed.ts';
import { UDP_FAULTS } from './udp-faults.ts';

proveAll('udp', UDP_FAULTS);
