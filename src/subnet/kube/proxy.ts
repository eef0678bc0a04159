import { parseIpv4 } from '../../ip/ipv4.ts';
import { parseIpv6 } from '../../ip/ipv6.ts';
import { containsAddr4, containsAddr6, parsePrefix4, parsePrefix6 } from '../../ip/prefix.ts';

/**
 * The proxy for requests to `server` by the rules of Go's net/http, which flannel's client follows: HTTPS_PROXY or
 * HTTP_PROXY by the scheme, never for the loopback, unless NO_PROXY names the host (`*`, a domain and its subdomains,
 * an address, **a CIDR**, each optionally with a port). Node's own reading of NO_PROXY knows no CIDR, which is how
 * clusters usually exempt their service range.
 */
export function proxyFromEnvironment(
  server: URL,
  env: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const upper = server.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
  const proxy = env[upper] || env[upper.toLowerCase()];
  if (!proxy) return undefined;
  const host = server.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const port = server.port || (server.protocol === 'https:' ? '443' : '80');
  if (host === 'localhost' || host === '::1' || host.startsWith('127.')) return undefined;
  const exempt = (env.NO_PROXY || env.no_proxy || '')
    .split(',')
    .map((entry) => entry.trim().toLowerCase())
    .some((entry) => entry !== '' && matches(entry, host, port));
  if (exempt) return undefined;
  return proxy.includes('://') ? proxy : `http://${proxy}`;
}

function matches(entry: string, host: string, port: string): boolean {
  if (entry === '*') return true;
  const v4 = parseIpv4(host);
  const v6 = parseIpv6(host);
  if (entry.includes('/')) {
    const prefix4 = parsePrefix4(entry);
    const prefix6 = parsePrefix6(entry);
    return (
      (v4 !== undefined && prefix4 !== undefined && containsAddr4(prefix4, v4)) ||
      (v6 !== undefined && prefix6 !== undefined && containsAddr6(prefix6, v6))
    );
  }
  const [, name = entry, onlyPort] = /^(\[.*\]|[^:]*):(\d+)$/.exec(entry) ?? [];
  if (onlyPort !== undefined && onlyPort !== port) return false;
  const bare = name.replace(/^\[|\]$/g, '');
  if (v4 !== undefined) return parseIpv4(bare) === v4;
  if (v6 !== undefined) return parseIpv6(bare) === v6;
  const domain = bare.replace(/^\*?\./, '');
  return host.endsWith(`.${domain}`) || (host === domain && bare === domain);
}
