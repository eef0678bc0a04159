import { prefixed } from '../errors.ts';

/** Failures of this step begin with the words that operators know from flannel. */
export async function failingAs<T>(words: string, step: () => Promise<T> | T): Promise<T> {
  try {
    return await step();
  } catch (error) {
    throw prefixed(words, error);
  }
}
