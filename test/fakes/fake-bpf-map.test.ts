import { bpfMapContract } from '../contract/bpf-map.ts';
import { FakeBpfMap } from './fake-bpf-map.ts';

bpfMapContract('fake', (options) => new FakeBpfMap(options));
