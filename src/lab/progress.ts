/** The lab's stages as they go: a line each; on a terminal the current one moves. */
import type { LabObserver } from './lab.ts';
import type { StageName, StageResult } from './lab-result.ts';
import { renderBanner, renderStage } from './report.ts';
import { type Line, paint, STYLE, span } from './text.ts';

const FRAMES = '⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏';
const FRAME_MS = 90;
const BAR_WIDTH = 20;

export interface ProgressOutput {
  write(text: string): unknown;
  /** Whether the current line can be overwritten. */
  readonly isTerminal: boolean;
  readonly colour: boolean;
}

export class Progress implements LabObserver, Disposable {
  readonly #output: ProgressOutput;
  #current: { title: string; startedAt: number; share: number } | undefined;
  #frame = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(output: ProgressOutput) {
    this.#output = output;
  }

  began(lab: { readonly id: string; readonly hosts: number; readonly backend: string }): void {
    this.#print(renderBanner(lab));
  }

  stageBegan(_name: StageName, title: string): void {
    this.#current = { title, startedAt: performance.now(), share: 0 };
    if (!this.#output.isTerminal) return;
    this.#timer ??= setInterval(() => this.#draw(), FRAME_MS).unref();
    this.#draw();
  }

  stageProgress(share: number): void {
    if (this.#current === undefined) return;
    this.#current.share = share;
    this.#draw();
  }

  stageEnded(stage: StageResult): void {
    this.#current = undefined;
    this.#print(renderStage(stage));
  }

  notice(text: string): void {
    this.#print([span('  ! ', STYLE.physical), span(text)]);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#current = undefined;
    if (this.#output.isTerminal) this.#output.write('\r\x1b[K');
  }

  #print(line: Line): void {
    const text = paint(line, this.#output.colour);
    this.#output.write(this.#output.isTerminal ? `\r\x1b[K${text}\n` : `${text}\n`);
    this.#draw();
  }

  #draw(): void {
    if (!this.#output.isTerminal || this.#current === undefined) return;
    const { title, startedAt, share } = this.#current;
    const full = Math.round(share * BAR_WIDTH);
    const seconds = `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;
    const bar = share > 0 ? [span('━'.repeat(full), STYLE.good), span('━'.repeat(BAR_WIDTH - full), STYLE.dim)] : [];
    const line = [
      span('  '),
      span(FRAMES[this.#frame++ % FRAMES.length] ?? ' ', STYLE.kernel),
      span(` ${title.padEnd(24)}`, STYLE.bold),
      span(`${seconds.padStart(8)}   `, STYLE.dim),
      ...bar,
    ];
    this.#output.write(`\r\x1b[K${paint(line, this.#output.colour)}`);
  }
}
