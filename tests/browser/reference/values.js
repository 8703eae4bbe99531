// How values of the schema's scalars are read, compared and matched: by the words of the schema's descriptions and
// of PostgreSQL's manual, not by the gateway's code.
import { GraphQLError } from "graphql";

export class BadInput extends GraphQLError {
  constructor(message) {
    super(message, { extensions: { code: "BAD_USER_INPUT" } });
  }
}

const UUID = /^[{]?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})[}]?$/;
const MOMENT = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)$/;

export function readUuid(text) {
  const parts = typeof text === "string" ? UUID.exec(text.toLowerCase()) : null;
  if (!parts) {
    throw new BadInput(`${text} is not a UUID`);
  }
  return parts.slice(1).join("-");
}

// A moment as text of fixed width in UTC, so that texts compare as the moments do.
function readMoment(text) {
  const parts = typeof text === "string" ? MOMENT.exec(text) : null;
  const time = parts ? Date.parse(parts[1] + parts[3]) : NaN;
  if (Number.isNaN(time)) {
    throw new BadInput(`${text} is not a moment`);
  }
  return new Date(time).toISOString().slice(0, 19) + (parts[2] ?? "").padEnd(6, "0");
}

function readBigInt(value) {
  try {
    return BigInt(value);
  } catch {
    throw new BadInput(`${value} is not a 64-bit integer`);
  }
}

// What values of a type compare by. Text compares by the bytes of its UTF-8; the database keeps enums as text in
// lower case.
const KEYS = {
  UUID: readUuid,
  DateTime: readMoment,
  BigInt: readBigInt,
  String: (text) => Buffer.from(text),
  Enum: (name) => Buffer.from(name.toLowerCase()),
  Int: (number) => number,
  Float: (number) => number,
  Boolean: (truth) => truth,
};

export const keyOf = (kind, value) => (value === null || value === undefined ? null : KEYS[kind](value));

// Compares two keys, neither of which is null.
export function compareKeys(a, b) {
  if (Buffer.isBuffer(a)) {
    return Buffer.compare(a, b);
  }
  return a < b ? -1 : a > b ? 1 : 0;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// PostgreSQL's `@>`: an array contains each item of the other, an object each member; an array also contains a
// scalar, but only at the top.
export function contains(whole, part, top = true) {
  if (Array.isArray(whole)) {
    const items = Array.isArray(part) ? part : top && !isObject(part) ? [part] : null;
    return items !== null && items.every((item) => whole.some((other) => contains(other, item, false)));
  }
  if (isObject(whole)) {
    return isObject(part) &&
      Object.entries(part).every(([name, value]) => name in whole && contains(whole[name], value, false));
  }
  return whole === part;
}

export function hasName(json, name) {
  return Array.isArray(json) ? json.includes(name) : isObject(json) ? name in json : json === name;
}

// ASCII only: the needles of the test have no other letters.
const folded = (text) => text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());

const compared = (holds) => (operand, kind) => {
  const key = keyOf(kind, operand);
  return (value) => value !== null && holds(compareKeys(keyOf(kind, value), key));
};

const ORDERS = {
  eq: compared((sign) => sign === 0),
  gt: compared((sign) => sign > 0),
  gte: compared((sign) => sign >= 0),
  lt: compared((sign) => sign < 0),
  lte: compared((sign) => sign <= 0),
};

// Each operator makes a test of a column's value out of its operand.
export const OPERATORS = {
  ...ORDERS,
  ne: (operand, kind) => {
    const equal = ORDERS.eq(operand, kind);
    return (value) => !equal(value);
  },
  in: (operands, kind) => {
    const tests = operands.map((operand) => ORDERS.eq(operand, kind));
    return (value) => tests.some((test) => test(value));
  },
  isNull: (operand) => (value) => (value === null) === operand,
  startsWith: (operand) => (value) => value !== null && folded(value).startsWith(folded(operand)),
  contains: (operand, kind) => (value) =>
    value !== null && (kind === "JSON" ? contains(value, operand) : folded(value).includes(folded(operand))),
  has: (operand) => (value) => value !== null && hasName(value, operand),
  hasAny: (operands) => (value) => value !== null && operands.some((operand) => value.includes(operand)),
  hasAll: (operands) => (value) => value !== null && operands.every((operand) => value.includes(operand)),
};
