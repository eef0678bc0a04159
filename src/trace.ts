/**
 * What the process does, for `-v`: programs it runs (level 4), requests to the API server or etcd (6, client-go's level for them). The
 * places that do it are far from the log and used by programs that have none.
 */
type Sink = (level: number, text: string) => void;

let sink: Sink | undefined;

/** From now on everything goes there, and nowhere with `undefined`. One for the process. */
export function traceTo(to: Sink | undefined): void {
  sink = to;
}

/** @param text called when somebody listens; must hold no secret. */
export function trace(level: number, text: () => string): void {
  sink?.(level, text());
}
