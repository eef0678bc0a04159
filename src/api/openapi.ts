import { toJsonSchema } from '@valibot/to-json-schema';
import { API_ROOT } from './root.ts';
import { ANSWERS, type Endpoint, EventSchema, PeersChangeSchema, ProblemSchema, SelfSchema } from './schema.ts';

type JsonObject = { readonly [key: string]: unknown };

interface Parameter {
  readonly name: string;
  readonly description: string;
  /** The text that it may have; `undefined`: a number. */
  readonly only?: string;
}

const LIMIT: Parameter = { name: 'limit', description: 'Entries at most.' };

const ABOUT: Readonly<Record<Endpoint, { readonly summary: string; readonly query: readonly Parameter[] }>> = {
  '/self': { summary: 'This agent: version, backend, lease, store, data path, cost.', query: [] },
  '/peers': { summary: 'The other hosts, how packets reach them, and what has passed.', query: [LIMIT] },
  '/leases': { summary: 'All leases of the store as this host knows them, refused ones too.', query: [] },
  '/state': { summary: 'Kernel state, wanted and actual, with the difference.', query: [LIMIT] },
  '/rules': { summary: 'Masquerade and forward rules in the kernel.', query: [] },
  '/readiness': { summary: 'Whether the node carries packets; each part with its failure and remedy.', query: [] },
  '/doctor': { summary: 'What the checks of weft doctor find on this host, with remedies.', query: [] },
  '/events': {
    summary: 'The last 10,000 events: who got, lost or changed what, what was repaired, and why.',
    query: [{ name: 'after', description: 'Events with a higher id than this.' }, LIMIT],
  },
  '/config': { summary: 'Flags and network configuration; secrets are left out.', query: [] },
};

/** The description of the API, OpenAPI 3.1, made of the schemas that its types come from. */
export function openApiDocument(): JsonObject {
  const answers = Object.entries(ANSWERS).map(([path, schema]): [string, JsonObject] => {
    const { summary, query } = ABOUT[path as Endpoint];
    return [`${API_ROOT}${path}`, getting(summary, query, { 'application/json': { schema: toJsonSchema(schema) } })];
  });
  const messages = { event: EventSchema, peers: PeersChangeSchema, self: SelfSchema };
  const stream = getting(
    'Server-sent events: `event` for each event, at once; `self` and `peers` when they change, at most once a second. ' +
      'The first `peers` has all, later ones what has changed. `x-messages` has the schema of each.',
    [
      { name: 'after', description: 'Events with a higher id come first; Last-Event-ID does the same.' },
      {
        name: 'only',
        description:
          'Events alone, `alive` every ten seconds, and `changed` when a path changes too often for events; both are empty. That costs the agent the least.',
        only: 'event',
      },
    ],
    {
      'text/event-stream': {
        schema: { type: 'string' },
        'x-messages': Object.fromEntries(
          Object.entries(messages).map(([name, schema]) => [name, toJsonSchema(schema)]),
        ),
      },
    },
  );
  const document = getting('This document.', [], { 'application/json': { schema: { type: 'object' } } });
  return {
    openapi: '3.1.0',
    info: {
      title: 'weft agent',
      version: '1',
      description:
        'Read-only. Fields may be added, and values to lists of known values; nothing is renamed, removed or given another ' +
        'meaning. What is not known is absent. Times are milliseconds since the epoch.',
    },
    paths: Object.fromEntries([...answers, [`${API_ROOT}/stream`, stream], [`${API_ROOT}/openapi.json`, document]]),
    components: { schemas: { Problem: toJsonSchema(ProblemSchema) } },
  };
}

function getting(summary: string, query: readonly Parameter[], content: JsonObject): JsonObject {
  const problem = { 'application/json': { schema: { $ref: '#/components/schemas/Problem' } } };
  return {
    get: {
      summary,
      ...(query.length === 0 ? {} : { parameters: query.map(parameterOf) }),
      responses: {
        200: { description: 'The answer.', content },
        401: { description: 'On an address: the token is missing or wrong.', content: problem },
        403: { description: 'On the socket: neither root nor the user of the agent.', content: problem },
        500: { description: 'What was asked for could not be read.', content: problem },
      },
    },
  };
}

function parameterOf({ name, description, only }: Parameter): JsonObject {
  const schema = only === undefined ? { type: 'integer', minimum: 0 } : { type: 'string', enum: [only] };
  return { name, in: 'query', description, required: false, schema };
}
