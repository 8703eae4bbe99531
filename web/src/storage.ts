// What GraphiQL may keep in the browser. Its history stores the request headers of every query, and a
// header may be a token, so headers are taken out before anything is written.
import type { Storage } from "@graphiql/toolkit";

const PREFIX = "graphiql:";
const EDITORS = ["tabState", "query", "variables", "headers", "operationName"];

function withoutHeaders(value: string): string {
  try {
    return JSON.stringify(JSON.parse(value), (key, inner: unknown) => (key === "headers" ? undefined : inner));
  } catch {
    // Not JSON: a plain setting such as the theme.
    return value;
  }
}

function remove(names: readonly string[]): void {
  for (const name of names) {
    localStorage.removeItem(name);
  }
}

// GraphiQL remembers the tabs of the last visit and then ignores `defaultTabs`.
export function forgetTabs(): void {
  remove(EDITORS.map((name) => PREFIX + name));
}

function ownKeys(): string[] {
  return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
}

// The tabs need `headers: null` to be recognised; only the two lists of the history are rewritten.
export const storage: Storage = {
  getItem: (key) => localStorage.getItem(key),
  setItem: (key, value) => {
    const history = key === `${PREFIX}queries` || key === `${PREFIX}favorites`;
    localStorage.setItem(key, history ? withoutHeaders(value) : value);
  },
  removeItem: (key) => {
    localStorage.removeItem(key);
  },
  clear: () => {
    remove(ownKeys());
  },
  get length() {
    return ownKeys().length;
  },
};
