/**
 * Run in a host's namespace: from then on eth0 loses super-packets that have a tunnel's headers, as a card with a fault in its offloads does.
 * Says `ready`, and holds it until the process ends.
 */
import { Assembler, reg } from '../../src/dataplane/fast-path/assembler.ts';
import { FRAME } from '../../src/dataplane/fast-path/frame-words.ts';
import { CONTEXT, ETHERNET_HEADER, end, loadBytes, SKB_GSO_SIZE } from '../../src/dataplane/fast-path/skb-program.ts';
import { IPV4_MIN_HEADER } from '../../src/dataplane/wire.ts';
import { attachTcx, loadClassifier } from '../../src/linux/bpf.ts';
import { hostDeviceIndex, readyUntilStopped } from './held-program.ts';

/** Those of the forwarder’s socket have one. */
const UDP_CHECKSUM_AT = ETHERNET_HEADER + IPV4_MIN_HEADER + 6;
const CHECKSUM = -8;

const asm = new Assembler();
asm.op('mov', CONTEXT, reg(1));
asm.load(4, 1, CONTEXT, SKB_GSO_SIZE);
asm.jumpIf('eq', 1, 0, 'pass');
loadBytes(asm, UDP_CHECKSUM_AT, CHECKSUM, 2);
asm.load(2, 1, FRAME, CHECKSUM);
asm.jumpIf('eq', 1, 0, 'drop');
end(asm);

using program = loadClassifier('test_losing', asm.assemble());
using _ = attachTcx(program, hostDeviceIndex(), 'egress', undefined);
await readyUntilStopped();
