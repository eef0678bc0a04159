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
