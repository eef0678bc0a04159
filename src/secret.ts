import { createHash, timingSafeEqual } from 'node:crypto';
import { inspect } from 'node:util';

/**
 * Text that must never be in a log: it shows as `[secret]`, whoever prints it. Two of the same text are deeply equal, by a
 * digest, which gives nothing away of a text that cannot be guessed; so it is for keys, not for passwords.
 */
export class Secret {
  readonly digest: string;
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
    this.digest = createHash('sha256').update(text).digest('hex').slice(0, 32);
  }

  reveal(): string {
    return this.#text;
  }

  equals(other: Secret): boolean {
    const [a, b] = [Buffer.from(this.#text), Buffer.from(other.#text)];
    return a.length === b.length && timingSafeEqual(a, b);
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}
