import { readFile, writeFile } from 'node:fs/promises';

/** Replaces what stands between `<!-- NAME:start -->` and `<!-- NAME:end -->` in a document. @throws Error without them. */
export async function writeBetween(document: string, name: string, body: string): Promise<void> {
  const [start, end] = [`<!-- ${name}:start -->`, `<!-- ${name}:end -->`];
  const path = new URL(`../${document}`, import.meta.url);
  const [before, rest] = (await readFile(path, 'utf8')).split(start);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) throw new Error(`${document} has no ${start} … ${end}`);
  await writeFile(path, `${before}${start}\n${body}\n${end}${after}`);
}
