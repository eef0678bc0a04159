/**
 * Characters that a terminal shows as nothing or as a plain blank, and quotation marks that are none to a parser. They come
 * into files by editors and by copying from web pages, and a message that prints them raw seems to complain about nothing.
 */
const NAMES: ReadonlyMap<string, string> = new Map([
  ['\u00a0', 'no-break space'],
  ['\u00ad', 'soft hyphen'],
  ['\u1680', 'Ogham space'],
  ['\u200b', 'zero width space'],
  ['\u200c', 'zero width non-joiner'],
  ['\u200d', 'zero width joiner'],
  ['\u200e', 'left-to-right mark'],
  ['\u200f', 'right-to-left mark'],
  ['\u2018', 'left single quotation mark'],
  ['\u2019', 'right single quotation mark'],
  ['\u201c', 'left double quotation mark'],
  ['\u201d', 'right double quotation mark'],
  ['\u2028', 'line separator'],
  ['\u2029', 'paragraph separator'],
  ['\u202f', 'narrow no-break space'],
  ['\u205f', 'medium mathematical space'],
  ['\u2060', 'word joiner'],
  ['\u3000', 'ideographic space'],
  ['\ufeff', 'byte order mark'],
  ['\ufffd', 'replacement character: the bytes are not UTF-8'],
]);
const FOUND = /[\u00a0\u00ad\u1680\u2000-\u200f\u2018\u2019\u201c\u201d\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufffd]/gu;

/** `U+FEFF (byte order mark)` for a character that a message must not print as it is; `undefined` for all others. */
export function nameOfInvisible(character: string): string | undefined {
  if (character.length !== 1 || character.search(FOUND) !== 0) return undefined;
  const code = character.charCodeAt(0);
  const name = NAMES.get(character) ?? (code >= 0x2000 && code <= 0x200a ? 'space of a fixed width' : 'invisible');
  return `U+${code.toString(16).toUpperCase().padStart(4, '0')} (${name})`;
}

/** The text with such characters replaced by their names: `eth0<U+00A0 (no-break space)>`. */
export function showInvisible(text: string): string {
  return text.replaceAll(FOUND, (character) => `<${nameOfInvisible(character)}>`);
}

/** Where the first of them is, for whoever asks why a text does not say what it shows: `line 1, column 1 has U+FEFF (…)`. */
export function firstInvisible(text: string): string | undefined {
  const at = text.search(FOUND);
  if (at === -1) return undefined;
  const before = text.slice(0, at);
  const column = at - before.lastIndexOf('\n');
  return `line ${before.split('\n').length}, column ${column} has ${nameOfInvisible(text.charAt(at))}`;
}
