import { proveAll } from './bed.ts';
import { VXLAN_FAULTS } from './faults-vxlan.ts';

proveAll('vxlan', VXLAN_FAULTS);
