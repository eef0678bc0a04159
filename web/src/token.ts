/**
 * The token of the page: it comes with the address that `weft ui` prints, behind the `#`, and is kept for this tab alone. Tabs of
 * one page, which are of one origin, tell each other.
 */

const KEY = 'weft-token';
/** Other tabs answer at once, or there are none. */
const ANSWER_MS = 250;

type Message = { readonly isWanted: true } | { readonly token: string };

const tabs = new BroadcastChannel(KEY);
let token = sessionStorage.getItem(KEY) ?? undefined;
let asked: Promise<void> | undefined;

/** Undefined where neither the address nor another tab has one. */
export async function pageToken(): Promise<string | undefined> {
  if (token !== undefined) return token;
  asked ??= askTabs();
  await asked;
  return token;
}

/** A token in the address is the newest there is: `weft ui` may have been started again. */
function takeFromAddress(): void {
  const given = new URLSearchParams(location.hash.slice(1)).get('token');
  if (!given) return;
  history.replaceState(history.state, '', location.pathname + location.search);
  keep(given);
  tell({ token: given });
}

function keep(given: string): void {
  token = given;
  sessionStorage.setItem(KEY, given);
}

function tell(message: Message): void {
  tabs.postMessage(message);
}

async function askTabs(): Promise<void> {
  const answered = new Promise<void>((resolve) => tabs.addEventListener('message', () => resolve(), { once: true }));
  tell({ isWanted: true });
  await Promise.race([answered, new Promise<void>((resolve) => setTimeout(resolve, ANSWER_MS))]);
}

tabs.addEventListener('message', ({ data }: MessageEvent<Message>) => {
  if ('token' in data) keep(data.token);
  else if (token !== undefined) tell({ token });
});
// The address of the new token, opened in a tab that is at the same place already, loads nothing.
addEventListener('hashchange', takeFromAddress);
takeFromAddress();
