import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { readSamples, type Sample, stageOf } from './profile-samples.ts';

/** As perf 6.1 prints it, shortened. */
const OUTPUT = `node-MainThread   100/103
	ffffffff81e327be memcpy ([kernel.kallsyms])
	ffffffff8201eac5 tun_chr_read_iter ([tun])
	ffffffff821ecc51 do_syscall_64 ([kernel.kallsyms])
	           f838f __GI___libc_read (/usr/lib/x86_64-linux-gnu/libc.so.6)

Web Content  7/7
	        36a9a3a0 [unknown] ([unknown])

swapper     0/0
	ffffffff8201eac5 process_backlog ([kernel.kallsyms])
	ffffffff81e66c3b net_rx_action ([kernel.kallsyms])

swapper     0/0
	ffffffff8201eac5 default_idle ([kernel.kallsyms])
iperf3   200/200
`;

async function read(output: string): Promise<Sample[]> {
  async function* lines(): AsyncGenerator<string> {
    yield* output.split('\n');
  }
  const samples: Sample[] = [];
  for await (const sample of readSamples(lines())) samples.push(sample);
  return samples;
}

const roles = { sender: 200, receiver: 201, forwarders: [100, 101] } as const;
const kernel = (...symbols: string[]) => symbols.map((symbol) => ({ symbol, object: '[kernel.kallsyms]' }));

describe('samples of perf', () => {
  it('are read with their process and frames, one without frames as well', async () => {
    const samples = await read(OUTPUT);
    assert.deepEqual(
      samples.map(({ pid, frames }) => [pid, frames.length]),
      [
        [100, 4],
        [7, 1],
        [0, 2],
        [0, 1],
        [200, 0],
      ],
    );
    assert.deepEqual(samples[0]!.frames[1], { symbol: 'tun_chr_read_iter', object: '[tun]' });
    assert.deepEqual(
      samples.map((sample) => stageOf(sample, roles)),
      ['tunRead', 'other', 'softirq', undefined, 'sender'],
    );
  });

  it("are told apart by the forwarder's call, and by its side where it makes none", () => {
    const of = (pid: number, frames: Sample['frames']) => stageOf({ pid, frames }, roles);
    assert.equal(of(100, kernel('copy', 'udp_sendmsg')), 'send');
    assert.equal(of(101, kernel('copy', 'udpv6_recvmsg')), 'receive');
    assert.equal(of(101, kernel('copy', 'tun_chr_write_iter')), 'tunWrite');
    // What a packet sets off within a call is the kernel's own.
    assert.equal(of(101, kernel('tcp_v4_rcv', 'net_rx_action', 'tun_chr_write_iter')), 'softirq');
    assert.equal(of(100, kernel('schedule', 'do_sys_poll')), 'waitOut');
    assert.equal(of(101, kernel('schedule', '__x64_sys_sched_yield')), 'waitIn');
    assert.equal(of(100, [{ symbol: '[unknown]', object: '[unknown]' }]), 'codeOut');
    assert.equal(of(101, [{ symbol: 'koffi_call', object: '/lib/koffi.node' }]), 'codeIn');
    assert.equal(of(101, kernel()), 'codeIn');
    assert.equal(of(201, kernel('tcp_recvmsg')), 'receiver');
    assert.equal(stageOf({ pid: 100, frames: kernel('udp_sendmsg') }, { ...roles, forwarders: undefined }), 'other');
  });
});
