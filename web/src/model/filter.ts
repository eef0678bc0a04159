/** The filter box: words that must all be found, a word with a minus before it that must not. Pure. */

export type Filter = (text: string) => boolean;

export function parseFilter(text: string): Filter {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = words.filter((word) => !word.startsWith('-'));
  const unwanted = words.filter((word) => word.startsWith('-') && word.length > 1).map((word) => word.slice(1));
  if (wanted.length === 0 && unwanted.length === 0) return () => true;
  return (candidate) => {
    const lower = candidate.toLowerCase();
    return wanted.every((word) => lower.includes(word)) && !unwanted.some((word) => lower.includes(word));
  };
}
