/** Who may read the page: whoever has the address that `weft ui` prints, and from then on the browser that opened it. */
import { randomBytes } from 'node:crypto';
import type { Context, MiddlewareHandler } from 'hono';
import { getCookie, setCookie } from 'hono/cookie';
import { Secret } from '../secret.ts';

const PARAMETER = 'token';
const SECRET_BYTES = 32;
const REFUSAL =
  'This page needs a token. Open the address that weft ui printed when it started: the token is part of it.\n';

export class PageAccess {
  readonly #token = randomSecret();
  /** What a browser keeps in place of the token: the cookie does not open the page elsewhere by its address. */
  readonly #session = randomSecret();

  /** @param origin `http://127.0.0.1:8087`. Returns what opens the page. It is as secret as what the page shows. */
  address(origin: string): string {
    return new URL(`/?${PARAMETER}=${this.#token.reveal()}`, origin).href;
  }

  /**
   * Lets requests with the cookie pass, exchanges the token of an address for the cookie and the address without it, and
   * answers everything else with 401.
   */
  readonly admit: MiddlewareHandler = async (context, next) => {
    const given = context.req.query(PARAMETER);
    if (given === undefined)
      return isSame(getCookie(context, cookieOf(context)), this.#session) ? next() : refuse(context);
    if (!isSame(given, this.#token)) return refuse(context);
    setCookie(context, cookieOf(context), this.#session.reveal(), { httpOnly: true, sameSite: 'Strict', path: '/' });
    const to = withoutToken(context.req.url);
    // After a link in a file or in another site a redirect would still be that one's request, which gets no strict cookie along.
    if (context.req.header('sec-fetch-site') !== 'cross-site') return context.redirect(to, 303);
    return context.text(`Go on at ${to}\n`, 200, { refresh: `0; url=${to}` });
  };
}

function randomSecret(): Secret {
  return new Secret(randomBytes(SECRET_BYTES).toString('base64url'));
}

function isSame(given: string | undefined, wanted: Secret): boolean {
  return given !== undefined && wanted.equals(new Secret(given));
}

function refuse(context: Context): Response {
  return context.text(REFUSAL, 401);
}

/** Browsers send a cookie to every port of its host: the pages of one machine, or tunnels to several, have one each. */
function cookieOf(context: Context): string {
  const [, port = '80'] = /:(\d+)$/.exec(context.req.header('host') ?? '') ?? [];
  return `weft-ui-${port}`;
}

/** The rest of the address. Of several slashes at its begin one is left: two would name another host. */
function withoutToken(address: string): string {
  const { pathname, searchParams } = new URL(address);
  searchParams.delete(PARAMETER);
  const query = searchParams.size === 0 ? '' : `?${searchParams}`;
  return `${pathname.replace(/^\/+/, '/')}${query}`;
}
