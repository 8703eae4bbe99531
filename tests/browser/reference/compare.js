// Compares what the gateway answers with what the reference does.
import { MARK } from "./resolvers.js";

const TOLERANCE = 1e-9;

const show = (value) => (JSON.stringify(value) ?? "nothing").slice(0, 300);

// The first place where the answers differ, as text; null if there is none. Cursors are paired: one place in one
// order has one cursor, and no other place has it.
export function difference(expected, actual, pairs, path = "data") {
  if (typeof expected === "string" && expected.startsWith(MARK)) {
    return pairs.match(expected.slice(MARK.length), actual) ? null : `${path} is ${show(actual)}, no cursor of ${expected}`;
  }
  if (typeof expected === "number" && typeof actual === "number") {
    const close = Math.abs(expected - actual) <= TOLERANCE * Math.max(1, Math.abs(expected));
    return close ? null : `${path} is ${actual}, not ${expected}`;
  }
  if (typeof expected !== "object" || typeof actual !== "object" || expected === null || actual === null) {
    return expected === actual ? null : `${path} is ${show(actual)}, not ${show(expected)}`;
  }
  const keys = Object.keys(expected);
  if (Array.isArray(expected) !== Array.isArray(actual) || keys.join() !== Object.keys(actual).join()) {
    return `${path} has ${Object.keys(actual)}, not ${keys}: ${show(actual)}, not ${show(expected)}`;
  }
  for (const key of keys) {
    const found = difference(expected[key], actual[key], pairs, `${path}.${key}`);
    if (found) {
      return found;
    }
  }
  return null;
}

// Both sides as lists of `path code`. The order of errors means nothing. The gateway lists 100 at most.
export function errorDifference(expected = [], actual = []) {
  const texts = (errors) => errors.map(({ path, extensions }) => `${JSON.stringify(path)} ${extensions?.code}`).sort();
  const [wanted, given] = [texts(expected), texts(actual)];
  if (wanted.length > 100 && given.length === 100) {
    return given.every((text) => wanted.includes(text)) ? null : "errors of other fields";
  }
  return wanted.join("\n") === given.join("\n") ? null : `errors are ${show(given)}, not ${show(wanted)}`;
}

// The gateway's cursors and the places that they stand for.
export class Cursors {
  places = new Map();
  byPlace = new Map();
  byType = new Map();

  // What the reference needs to read a cursor.
  get(cursor) {
    return this.places.get(cursor);
  }

  match(place, cursor) {
    const known = this.byPlace.get(place);
    if (known) {
      return known === cursor;
    }
    if (typeof cursor !== "string" || this.places.has(cursor)) {
      return false;
    }
    const { type, order, id } = JSON.parse(place);
    this.byPlace.set(place, cursor);
    this.places.set(cursor, { type, order, id });
    this.byType.set(type, [...(this.byType.get(type) ?? []), { cursor, order }]);
    return true;
  }
}
