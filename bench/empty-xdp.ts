/**
 * Run in a host's namespace: attaches an XDP program that passes everything to eth0, says `ready`, and holds it until the process ends.
 * Native XDP copies every packet on veth. With this program on a path that needs none, both sides of a comparison have that cost.
 */
import { Assembler } from '../src/dataplane/fast-path/assembler.ts';
import { attachXdp, loadXdp } from '../src/linux/bpf.ts';
import { hostDeviceIndex, readyUntilStopped } from '../test/netns/held-program.ts';

/** `enum xdp_action` (linux/bpf.h). */
const XDP_PASS = 2;

const program = new Assembler();
program.op('mov', 0, XDP_PASS);
program.exit();
using loaded = loadXdp('bench_empty', program.assemble());
using _ = attachXdp(loaded, hostDeviceIndex());
await readyUntilStopped();
