import { kernelContract } from '../contract/kernel.ts';
import { openRealHost } from './kernel-harness.ts';

kernelContract('iproute2', openRealHost);
