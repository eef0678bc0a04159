/**
 * Run in a host's namespace: from then on eth0 loses super-packets that a tunnel's headers were put on, as a card with a fault in its offloads does.
 * Says `ready`, and holds it until the process ends.
 */
import { Assembler } from '../../src/dataplane/fast-path/assembler.ts';
import { HOST_DEVICE } from '../../src/lab/namespaces.ts';
import { attachTcx, loadClassifier } from '../../src/linux/bpf.ts';
import { readDeviceFacts } from '../../src/linux/ethtool.ts';

const SKB_GSO_SIZE = 176;
const SKB_LOAD_BYTES = 26;
const [TCX_NEXT, TCX_DROP] = [-1, 2];
/** Behind Ethernet and IPv4. Those of the forwarder’s socket have one. */
const UDP_CHECKSUM_AT = 14 + 20 + 6;

const asm = new Assembler();
asm.op('mov', 6, { reg: 1 });
asm.load(4, 1, 6, SKB_GSO_SIZE);
asm.jumpIf('eq', 1, 0, 'next');
asm.op('mov', 1, { reg: 6 });
asm.op('mov', 2, UDP_CHECKSUM_AT);
asm.op('mov', 3, { reg: 10 });
asm.op('add', 3, -8);
asm.op('mov', 4, 2);
asm.call(SKB_LOAD_BYTES);
asm.jumpIf('ne', 0, 0, 'next');
asm.load(2, 1, 10, -8);
asm.jumpIf('ne', 1, 0, 'next');
asm.op('mov', 0, TCX_DROP);
asm.exit();
asm.label('next');
asm.op('mov', 0, TCX_NEXT);
asm.exit();

using program = loadClassifier('test_losing', asm.assemble());
const device = readDeviceFacts(HOST_DEVICE);
if (typeof device === 'number') throw new Error(`there is no ${HOST_DEVICE} here (errno ${device})`);
using _ = attachTcx(program, device.index, 'egress', undefined);
process.stdout.write('ready\n');
const stopped = Promise.withResolvers<void>();
process.once('SIGTERM', () => stopped.resolve());
// Keeps the process alive.
const timer = setInterval(() => {}, 3_600_000);
await stopped.promise;
clearInterval(timer);
