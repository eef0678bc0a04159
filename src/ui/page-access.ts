import { randomBytes } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { Secret } from '../secret.ts';

const SECRET_BYTES = 32;
const REFUSAL =
  'This page needs a token. Open the address that weft ui printed when it started: the token is part of it.\n';

/** Who may read the page: whoever has the address that `weft ui` prints. */
export class PageAccess {
  readonly #token = new Secret(randomBytes(SECRET_BYTES).toString('base64url'));

  /**
   * What opens the page. It is as secret as what the page shows. The token is in the fragment, which a browser sends to no server:
   * the page's script (web/src/token.ts) takes it from there and puts it into a header. A cookie would go along to every port of
   * this address, and other users of the machine have ports as well.
   *
   * @param origin `http://127.0.0.1:8087`.
   */
  address(origin: string): string {
    return new URL(`/#token=${this.#token.reveal()}`, origin).href;
  }

  /** Lets requests with `Authorization: Bearer` and the token pass, and answers everything else with 401. */
  readonly admit: MiddlewareHandler = async (context, next) => {
    const [, given] = /^Bearer (\S+)$/i.exec(context.req.header('authorization') ?? '') ?? [];
    if (given !== undefined && this.#token.equals(new Secret(given))) return next();
    return context.text(REFUSAL, 401);
  };
}
