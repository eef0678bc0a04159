import { proveAll } from './bed.ts';
import { VXLAN_FAULTS } from './vxlan-faults.ts';

proveAll('vxlan', VXLAN_FAULTS);
