// Random documents: valid over the schema, and about rows that are there. Everything is drawn from one seed.
import {
  getNamedType, getNullableType, isEnumType, isInputObjectType, isLeafType, isListType, parse, validate,
} from "graphql";

import { ENTITIES } from "./rows.js";

// Mulberry32.
export function randomFrom(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    chance: (share) => next() < share,
    below: (count) => Math.floor(next() * count),
    pick: (items) => items[Math.floor(next() * items.length)],
  };
}

const DEPTH = 5;
const FIELDS = 60;
const UNKNOWN = "00000000-0000-4000-8000-ffffffffffff";
// What is left out: searches need a model, the gateway itself goes on writing the trail and the feed, and only it knows
// places in its log.
const EXCLUDED = new Set([
  "searchEvidence", "searchTasks", "searchAgents", "similar", "evidenceFor", "auditLog", "auditLogs", "verifyAuditLog", "activity", "activities",
  "changeCursor",
]);

const screamingCase = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();

export class Documents {
  // `cursors` are those that the gateway gave out so far.
  constructor(schema, rows, cursors, random) {
    Object.assign(this, { schema, rows, cursors, random });
    this.ids = ENTITIES.map((type) => rows[type].map((row) => row.id)).filter((ids) => ids.length > 0);
  }

  // A document with its variables. `mistakes` says how often an argument is wrong. A fragment that is spread in
  // two places can make keys collide there; such a document is thrown away.
  next(mistakes) {
    for (;;) {
      const made = this.draw(mistakes);
      if (validate(this.schema, parse(made.query)).length === 0) {
        return made;
      }
    }
  }

  draw(mistakes) {
    Object.assign(this, { mistakes, budget: FIELDS, fragments: [], open: 0, definitions: [], variables: {}, names: 0 });
    const root = this.selection(this.schema.getQueryType(), 0, new Map());
    const variables = this.definitions.length > 0 ? `(${this.definitions.join(", ")})` : "";
    const operations = [`query Main${variables} ${root}`, ...this.fragments.map(({ text }) => text)];
    const operationName = this.random.chance(0.1) ? "Main" : undefined;
    if (operationName) {
      operations.splice(this.random.below(2), 0, "query Other { __typename }");
    }
    return { query: operations.join("\n"), variables: this.variables, operationName };
  }

  // A selection on a type. `scope` holds the response keys of the object so far, also those of other fragments.
  selection(type, depth, scope) {
    const many = type === this.schema.getQueryType() ? 4 : 5;
    const count = 1 + this.random.below(many);
    const items = [];
    for (let n = 0; n < count || items.length === 0; n++) {
      items.push(this.item(type, depth, scope));
    }
    return `{ ${items.join(" ")} }`;
  }

  item(type, depth, scope) {
    const { random } = this;
    const isRow = ENTITIES.includes(type.name);
    if (this.open < 3 && this.budget > 0 && random.chance(type.name === "Node" ? 0.7 : 0.2)) {
      this.open++;
      const item = this.fragment(type, isRow, depth, scope);
      this.open--;
      return item;
    }
    return this.field(type, depth, scope);
  }

  fragment(type, isRow, depth, scope) {
    const { random } = this;
    let on = type;
    if (type.name === "Node") {
      on = this.schema.getType(random.chance(0.5) ? random.pick(["Task", "Evidence"]) : random.pick([...ENTITIES, "Node"]));
    } else if (isRow && random.chance(0.2)) {
      on = this.schema.getType("Node");
    }
    const known = this.fragments.filter((fragment) => fragment.on === on.name && fragment.text);
    if (known.length > 0 && random.chance(0.4)) {
      return `...${random.pick(known).name}${this.directives()}`;
    }
    if (random.chance(0.3)) {
      const fragment = { name: `F${this.fragments.length}`, on: on.name, text: "" };
      this.fragments.push(fragment);
      fragment.text = `fragment ${fragment.name} on ${on.name} ${this.selection(on, depth, scope)}`;
      return `...${fragment.name}${this.directives()}`;
    }
    const condition = on !== type || random.chance(0.5) ? ` on ${on.name}` : "";
    return `...${condition}${this.directives()} ${this.selection(on, depth, scope)}`;
  }

  field(parent, depth, scope) {
    const { random } = this;
    this.budget--;
    if (random.chance(0.1)) {
      return this.plain(parent, { name: "__typename", type: this.schema.getType("String"), args: [] }, depth, scope);
    }
    const all = Object.values(parent.getFields()).filter(({ name }) => !EXCLUDED.has(name));
    const leaves = all.filter((field) => isLeafType(getNamedType(field.type)));
    const deep = depth < DEPTH && this.budget > 0;
    const branches = deep ? all.filter((field) => !leaves.includes(field)) : [];
    if (leaves.length + branches.length === 0) {
      // A type without leaves, and no room for more.
      return this.plain(parent, { name: "__typename", type: this.schema.getType("String"), args: [] }, depth, scope);
    }
    const pool = leaves.length === 0 || (branches.length > 0 && random.chance(0.55)) ? branches : leaves;
    return this.plain(parent, random.pick(pool), depth, scope);
  }

  plain(parent, field, depth, scope) {
    const { random } = this;
    // graphql-js overlooks it when `__typename`, which is never null, shares a key with a field that can be.
    const aliases = field.name === "__typename" ? ["_t", "_type"] : ["a", "b", "title", "id", "_x"];
    let key = random.chance(0.65) ? field.name : `${random.pick(aliases)}${random.pick(["", "1"])}`;
    let known = scope.get(key);
    const same = known?.parent === parent.name && known?.field === field.name;
    if (known && !same && !(known.leaf && known.type === String(field.type))) {
      key = `k${this.names++}`;
      known = undefined;
    } else if (known && !same) {
      // Another type's leaf of the same shape may share the key if no object is of both types.
      key = known.parent !== parent.name && parent.name !== "Node" && known.parent !== "Node" ? key : `k${this.names++}`;
      known = undefined;
    }
    const leaf = isLeafType(getNamedType(field.type));
    if (!known) {
      known = { parent: parent.name, field: field.name, leaf, type: String(field.type), args: this.args(parent, field, depth), scope: new Map() };
      scope.set(key, known);
    }
    const alias = key === field.name ? "" : `${key}: `;
    const inner = leaf ? "" : ` ${this.selection(getNamedType(field.type), depth + 1, known.scope)}`;
    return `${alias}${field.name}${known.args}${this.directives(field.name === "__typename")}${inner}`;
  }

  // async-graphql 7 does not look at the directives of `__typename`, so a variable that is used only there is
  // refused as unused: there are literals.
  directives(constant = false) {
    const { random } = this;
    if (!random.chance(0.12)) {
      return "";
    }
    const truth = random.chance(0.5);
    const boolean = this.schema.getType("Boolean");
    const condition = !constant && random.chance(0.6) ? this.variable(`${boolean}!`, boolean, truth) : truth;
    return ` @${random.pick(["skip", "include"])}(if: ${condition})`;
  }

  // Arguments as text, or nothing.
  args(parent, field, depth) {
    if (field.args.length === 0) {
      return "";
    }
    const values = this.values(parent, field, depth);
    if (this.random.chance(this.mistakes)) {
      Object.assign(values, this.mistake(field, values));
    }
    const given = field.args.filter(({ name }) => name in values);
    const texts = given.map(({ name, type }) => `${name}: ${this.literal(type, values[name])}`);
    if (this.random.chance(0.3)) {
      texts.reverse();
    }
    return texts.length > 0 ? `(${texts.join(", ")})` : "";
  }

  values(parent, field, depth) {
    const { random } = this;
    const names = new Set(field.args.map(({ name }) => name));
    if (names.has("id")) {
      return { id: this.id(getNamedType(field.type).name) };
    }
    if (names.has("ids")) {
      const ids = Array.from({ length: random.below(5) }, () => this.id("Node"));
      return { ids: ids.length === 1 && random.chance(0.5) ? ids[0] : ids };
    }
    if (names.has("groupBy")) {
      return this.aggregation(field);
    }
    if (names.has("depth")) {
      return this.walk();
    }
    return names.has("orderBy") ? this.page(getNamedType(field.type).name.replace("Connection", ""), depth) : this.some({ first: random.below(6) }, 0.5);
  }

  // Some of these members.
  some(values, share) {
    return Object.fromEntries(Object.entries(values).filter(() => this.random.chance(share)));
  }

  id(type) {
    const { random } = this;
    const known = this.rows[type]?.length > 0 && !random.chance(0.1);
    const id = known ? random.pick(this.rows[type]).id : random.chance(0.3) ? UNKNOWN : random.pick(random.pick(this.ids));
    return random.chance(0.05) ? id.toUpperCase() : random.chance(0.05) ? id.replaceAll("-", "") : id;
  }

  page(type, depth) {
    const { random } = this;
    const page = this.some({ orderBy: this.order(type), filter: this.filter(type, 0) }, 0.3);
    // Without a size only where no further rows hang on it.
    const size = random.below(depth < 2 ? 6 : 4);
    const known = this.cursors.get(type) ?? [];
    if (known.length > 0 && random.chance(0.35)) {
      const { cursor, order } = random.pick(known);
      const keys = order === "" ? [] : order.split(",").map((key) => key.split(" "));
      page.orderBy = keys.map(([field, direction]) => ({ field: screamingCase(field), direction }));
      const others = known.filter((other) => other.order === order);
      Object.assign(page, random.pick([{ after: cursor }, { before: cursor }, { after: cursor, before: random.pick(others).cursor }]));
    }
    const sizes = [{ first: size }, { first: size }, { first: size, last: null }, { last: size }, { last: size, first: null }];
    if (depth >= DEPTH - 1) {
      sizes.push({}, { first: null, filter: page.filter ?? null, after: page.after ?? null });
    }
    return Object.assign(page, random.pick(sizes));
  }

  order(type) {
    const { random } = this;
    const fields = this.schema.getType(`${type}OrderField`).getValues().map(({ name }) => name);
    const key = () => ({ field: random.pick(fields), ...this.some({ direction: random.pick(["ASC", "DESC", null]) }, 0.7) });
    const keys = Array.from({ length: random.pick([0, 1, 1, 2, 3]) }, key);
    return keys.length === 1 && random.chance(0.4) ? keys[0] : keys;
  }

  aggregation(field) {
    const { random } = this;
    const type = getNamedType(field.type).name.replace("Aggregate", "");
    const names = this.schema.getType(`${type}GroupBy`).getValues().map(({ name }) => name);
    const keys = Array.from({ length: random.below(4) }, () => random.pick(names));
    const groupBy = keys.length === 1 && random.chance(0.5) ? keys[0] : keys;
    return { ...this.some({ groupBy }, 0.8), ...this.some({ filter: this.filter(type, 0) }, 0.4) };
  }

  walk() {
    const { random } = this;
    const kinds = this.schema.getType("EvidenceRelationKind").getValues().map(({ name }) => name);
    return this.some({
      direction: random.pick(["UP", "DOWN", "BOTH", null]),
      depth: random.pick([0, 1, 2, 3, 4, null]),
      kinds: random.pick([[random.pick(kinds), random.pick(kinds)], random.pick(kinds), null]),
    }, 0.6);
  }

  filter(type, depth) {
    const { random } = this;
    const fields = Object.values(this.schema.getType(`${type}Filter`).getFields());
    const filter = {};
    for (let n = random.pick([0, 1, 1, 1, 2]); n > 0; n--) {
      const field = random.pick(fields);
      const target = getNamedType(field.type).name;
      const inner = () => this.filter(target.replace("ListFilter", "").replace("Filter", ""), depth + 1);
      if (field.name in this.schema.getType(type).getFields() && /^(String|UUID|DateTime|JSON|Int|Float|BigInt|Boolean)|^[A-Z]\w*(Status|Role|Type|Domain|Kind)Filter$/.test(target)) {
        filter[field.name] = this.operators(type, field, getNamedType(field.type));
      } else if (depth < 2) {
        const list = () => Array.from({ length: random.below(3) }, inner);
        filter[field.name] = isListType(field.type) ? random.pick([list, inner])()
          : target.endsWith("ListFilter") ? this.some({ some: inner(), none: inner(), every: inner() }, 0.4) : inner();
      }
    }
    return filter;
  }

  operators(type, field, input) {
    const { random } = this;
    const names = Object.keys(input.getFields());
    const values = {};
    for (let n = random.pick([0, 1, 1, 1, 1, 2]); n > 0; n--) {
      const operator = random.pick(names);
      const row = this.rows[type].length > 0 ? random.pick(this.rows[type]) : {};
      const sample = () => (this.rows[type].length > 0 ? random.pick(this.rows[type]) : {})[field.name] ?? null;
      const value = row[field.name] ?? sample() ?? sample();
      const operand = operator === "isNull" ? random.chance(0.5) : value === null ? undefined : this.operand(operator, value, sample, input.name);
      if (operand !== undefined) {
        values[operator] = operand;
      }
    }
    return values;
  }

  operand(operator, value, sample, input) {
    const { random } = this;
    if (input === "JSONFilter") {
      const part = this.part(value);
      const name = typeof part === "object" && part !== null ? random.pick(Object.keys(part)) : undefined;
      return operator === "contains" ? part : name ?? "package";
    }
    if (input === "StringListFilter") {
      const item = random.pick(value) ?? "reference";
      return operator === "has" ? item : random.pick([[item], item, [], [item, "other"]]);
    }
    if (operator === "contains" || operator === "startsWith") {
      const pieces = value.match(operator === "contains" ? /[\x20-\x7e]{1,5}/g : /^[\x20-\x7e]{1,5}/g) ?? [];
      const piece = random.pick(pieces) ?? "";
      return random.chance(0.3) ? piece.toUpperCase() : piece;
    }
    const spelt = (one) => this.spelling(one, input);
    return operator === "in" ? random.pick([[], spelt(value), [spelt(value), spelt(sample() ?? value)]]) : spelt(value);
  }

  // Other spellings of the same value.
  spelling(value, input) {
    const { random } = this;
    if (input === "DateTimeFilter" && random.chance(0.3)) {
      const later = new Date(Date.parse(`${value.slice(0, 19)}Z`) + 5_400_000).toISOString().slice(0, 19);
      return `${later}${value.slice(19, -1)}+01:30`;
    }
    if (input === "FloatFilter") {
      // Without serde_json's feature float_roundtrip the last of 17 digits can get lost on the way in.
      return Number(value.toPrecision(15));
    }
    return input === "UUIDFilter" && random.chance(0.1) ? value.toUpperCase() : value;
  }

  // A part of a JSON value that the value contains.
  part(value) {
    const { random } = this;
    if (Array.isArray(value)) {
      return value.length > 0 && random.chance(0.6) ? [this.part(random.pick(value))] : [];
    }
    if (typeof value !== "object" || value === null) {
      return value;
    }
    const names = Object.keys(value).filter((name) => /^\w+$/.test(name));
    return names.length > 0 && random.chance(0.9) ? Object.fromEntries([random.pick(names)].map((name) => [name, this.part(value[name])])) : {};
  }

  // Values with which a field fails when it is executed, though the document is valid.
  mistake(field, values) {
    const names = new Set(field.args.map(({ name }) => name));
    const wrong = [];
    const offer = (name, ...mistakes) => names.has(name) && wrong.push(...mistakes);
    offer("first", { first: -1 });
    offer("last", { last: -3, first: null }, { first: 1, last: 1 });
    offer("after", { after: "not a cursor" }, { before: "AAAA" });
    offer("id", { id: "nonsense" }, { id: "" });
    offer("ids", { ids: [UNKNOWN, "nonsense"] });
    offer("depth", { depth: 11 }, { depth: -1 });
    offer("filter", { filter: { id: { eq: "nonsense" } } }, { filter: { or: [{ id: { eq: null } }] } },
      { filter: { not: null } }, { filter: { createdAt: { lt: "yesterday" } } });
    const known = this.cursors.get(getNamedType(field.type).name.replace("Connection", "")) ?? [];
    if (names.has("after") && known.length > 0) {
      // A cursor of another order.
      wrong.push({ after: this.random.pick(known).cursor, orderBy: ["ID", "CREATED_AT", "ID", "ID"].map((field) => ({ field })) });
    }
    return this.random.pick(wrong) ?? values;
  }

  // A value as text, of which some parts become variables.
  literal(type, value) {
    const { random } = this;
    const named = getNullableType(type);
    if (random.chance(0.15)) {
      return this.variable(String(type), type, value);
    }
    if (value === null) {
      return "null";
    }
    if (isListType(named)) {
      return Array.isArray(value) ? `[${value.map((item) => this.literal(named.ofType, item)).join(", ")}]` : this.literal(named.ofType, value);
    }
    if (isInputObjectType(named)) {
      const fields = named.getFields();
      return `{${Object.entries(value).map(([name, inner]) => `${name}: ${this.literal(fields[name].type, inner)}`).join(", ")}}`;
    }
    return isEnumType(named) ? value : this.json(value);
  }

  json(value) {
    if (Array.isArray(value)) {
      return `[${value.map((item) => this.json(item)).join(", ")}]`;
    }
    if (typeof value === "object" && value !== null) {
      return `{${Object.entries(value).map(([name, inner]) => `${name}: ${this.json(inner)}`).join(", ")}}`;
    }
    return JSON.stringify(value);
  }

  // A variable with the value, given or by default; or one that is not given at all.
  variable(declared, type, value) {
    const { random } = this;
    const name = `v${this.definitions.length}`;
    const optional = !declared.endsWith("!");
    if (value !== null && random.chance(0.3)) {
      const nullable = declared.replace(/!$/, "");
      const text = this.constant(type, value);
      this.definitions.push(`$${name}: ${random.chance(0.5) ? declared : nullable} = ${text}`);
    } else if (optional && random.chance(0.2)) {
      this.definitions.push(`$${name}: ${declared}`);
      if (random.chance(0.3)) {
        this.variables[name] = null;
      }
    } else {
      this.definitions.push(`$${name}: ${optional && value !== null && random.chance(0.3) ? `${declared}!` : declared}`);
      this.variables[name] = value;
    }
    return `$${name}`;
  }

  // A value as text without variables.
  constant(type, value) {
    const random = this.random;
    this.random = { ...random, chance: () => false };
    const text = this.literal(type, value);
    this.random = random;
    return text;
  }
}
