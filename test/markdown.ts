/** GitHub's id for a heading: lower case, punctuation gone, spaces to dashes. */
function anchorOf(heading: string): string {
  return heading
    .replaceAll(/[`*]/g, '')
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
}

/** A document without what is in code blocks and code spans: nothing there is a link or a heading. */
export function prose(text: string): string {
  return text.replaceAll(/^```.*?^```/gms, '').replaceAll(/`[^`\n]*`/g, (span) => span.replaceAll(/[[\]()]/g, ''));
}

/** What links of a document's own can name: the ids of its headings, and those it sets itself. */
export function anchorsOf(text: string): string[] {
  const headings = [...prose(text).matchAll(/^#+ (.+)$/gm)].map((match) => anchorOf(match[1]!));
  const own = [...text.matchAll(/<a id="([^"]+)"><\/a>/g)].map((match) => match[1]!);
  return [...headings, ...own];
}

/** The lines of a document from one heading (`## Title`) to the next of the same or a higher level. @throws Error when it has none. */
export function sectionOf(text: string, heading: string): string {
  const level = /^#+/.exec(heading)![0].length;
  const next = new RegExp(`^#{1,${level}} `);
  const lines: string[] = [];
  let [isInside, isInBlock] = [false, false];
  for (const line of text.split('\n')) {
    // What a shell takes for a comment is no heading.
    if (/^ *```/.test(line)) isInBlock = !isInBlock;
    if (isInside && !isInBlock && next.test(line)) break;
    if (isInside) lines.push(line);
    else if (!isInBlock && line === heading) isInside = true;
  }
  if (!isInside) throw new Error(`there is no heading ${heading}`);
  return lines.join('\n');
}

/** The blocks of shell commands of a text, in their order; those of a list without its indentation. */
export function shellBlocks(text: string): string[] {
  return Array.from(text.matchAll(/^( *)```sh\n(.*?)^ *```$/gms), ([, indent, block]) =>
    block!.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  );
}

/** The commands of a block without its comments. One that goes on in further lines has them all. */
export function shellCommands(block: string): string[] {
  const commands: string[] = [];
  let open = '';
  for (const line of block.split('\n')) {
    const text = open === '' ? line.replace(/(?:^|\s+)#\s.*$/, '') : `${open}\n${line}`;
    const isOpen = /(?:\\|&&|\|)$/.test(text) || text.split("'").length % 2 === 0;
    open = isOpen ? text : '';
    if (!isOpen && text !== '') commands.push(text);
  }
  return commands;
}
