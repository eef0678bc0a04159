// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import { IP_FLAG_DF, IPV4_MIN_HEADER, PROTO_UDP } from '../wire.ts';
import { Assembler, reg } from './assembler.ts';
import {
  be16,
  be32,
  begin,
  CONTEXT,
  chooseMark,
  ETHERNET_HEADER,
  end,
  endpointLookup,
  FRAME,
  KTIME_GET_NS,
  L3_CSUM_REPLACE,
  loadBytes,
  MARK_FAST,
  type ProgramOptions,
  storeBytes,
  VERSION_4_NO_OPTIONS,
} from './skb-program.ts';

// The frame, below R10.
const OUTER = -24;
const MARK = -32;

/**
 * For what the underlay's device is given to send (tcx egress): puts the mark on the forwarder's datagrams to peers, so that a
 * peer with a fast path of its own knows of this one. A peer without one, such as flannel, does not look at the field.
 */
export function markingProgram({
  maps,
  ownAddress,
  ownPort,
}: Pick<ProgramOptions, 'maps' | 'ownAddress' | 'ownPort'>): Uint8Array {
  const asm = new Assembler();
  begin(asm);
  loadBytes(asm, ETHERNET_HEADER, OUTER, IPV4_MIN_HEADER + 2);
  asm.load(1, 1, FRAME, OUTER);
  asm.jumpIf('ne', 1, VERSION_4_NO_OPTIONS, 'pass');
  asm.load(1, 1, FRAME, OUTER + 9);
  asm.jumpIf('ne', 1, PROTO_UDP, 'pass');
  asm.load(2, 1, FRAME, OUTER + IPV4_MIN_HEADER);
  asm.jumpIf('ne', 1, be16(ownPort), 'pass');
  asm.load(4, 1, FRAME, OUTER + 12);
  asm.op32('mov', 2, be32(ownAddress));
  asm.jumpIf('ne', 1, reg(2), 'pass');
  asm.load(2, 1, FRAME, OUTER + 6);
  asm.jumpIf('ne', 1, be16(IP_FLAG_DF), 'pass');
  // The outbound program's have it.
  asm.load(1, 1, FRAME, OUTER + 4);
  asm.jumpIf('eq', 1, MARK_FAST >>> 8, 'pass');
  endpointLookup(asm, maps, OUTER + 16);
  asm.call(KTIME_GET_NS);
  chooseMark(asm, MARK);
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, ETHERNET_HEADER + 10);
  asm.load(2, 3, FRAME, OUTER + 4);
  asm.load(8, 4, FRAME, MARK);
  asm.op('mov', 5, 2);
  asm.call(L3_CSUM_REPLACE);
  asm.jumpIf('ne', 0, 0, 'pass');
  storeBytes(asm, ETHERNET_HEADER + 4, MARK, 2);
  asm.jump('pass');
  end(asm);
  return asm.assemble();
}
