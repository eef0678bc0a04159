import { readFile, writeFile } from 'node:fs/promises';

/** Replaces what stands between `<!-- NAME:start -->` and `<!-- NAME:end -->` in README.md. @throws Error without them. */
export async function writeBetween(name: string, body: string): Promise<void> {
  const [start, end] = [`<!-- ${name}:start -->`, `<!-- ${name}:end -->`];
  const readme = new URL('../README.md', import.meta.url);
  const [before, rest] = (await readFile(readme, 'utf8')).split(start);
  const after = rest?.split(end)[1];
  if (before === undefined || after === undefined) throw new Error(`README.md has no ${start} … ${end}`);
  await writeFile(readme, `${before}${start}\n${body}\n${end}${after}`);
}
