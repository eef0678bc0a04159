/**
 * Run in a host's namespace: attaches an XDP program that passes everything to eth0, says `ready`, and holds it until the process ends.
 * Native XDP copies every packet on veth. With this program on a path that needs none, both sides of a comparison have that cost.
 */
import { Assembler } from '../src/dataplane/fast-path/assembler.ts';
import { HOST_DEVICE } from '../src/lab/namespaces.ts';
import { attachXdp, loadXdp } from '../src/linux/bpf.ts';
import { readDeviceFacts } from '../src/linux/ethtool.ts';

/** `enum xdp_action` (linux/bpf.h). */
const XDP_PASS = 2;

const program = new Assembler();
program.op('mov', 0, XDP_PASS);
program.exit();
using loaded = loadXdp('bench_empty', program.assemble());
const device = readDeviceFacts(HOST_DEVICE);
if (typeof device === 'number') throw new Error(`there is no ${HOST_DEVICE} here (errno ${device})`);
using _ = attachXdp(loaded, device.index);
process.stdout.write('ready\n');
const stopped = Promise.withResolvers<void>();
process.once('SIGTERM', () => stopped.resolve());
// Keeps the process alive.
const timer = setInterval(() => {}, 3_600_000);
await stopped.promise;
clearInterval(timer);
