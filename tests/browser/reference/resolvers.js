// The reference: graphql-js over rows in memory, with a plain resolver per field. It knows no levels, batches or
// statements; what it answers is what the specification and the schema's descriptions say.
import { executeSync, getNamedType, isEnumType, isListType, isObjectType, getNullableType } from "graphql";

import { ENTITIES } from "./rows.js";
import { BadInput, OPERATORS, compareKeys, keyOf, readUuid } from "./values.js";

const MAX_PAGE_SIZE = 200;

// Columns that hold the other row's id under another name than the field's.
const KEYS_OF_ONE = { parentTask: "parentId", from: "fromEvidenceId", to: "toEvidenceId" };

const NEWEST_FIRST = [{ field: "createdAt", descending: true }];
const OLDEST_FIRST = [{ field: "createdAt", descending: false }];
const BY_POSITION = [{ field: "position", descending: false }];
const BY_NAME = [{ field: "name", descending: false }];

// Each relation to many: the column of the other rows that holds this row's id, or a function that finds them.
const MANY = {
  Task: {
    subtasks: "parentId", evidences: "taskId", evidenceChains: "taskId", results: "taskId", comments: "taskId",
    attachments: "taskId", executions: "taskId",
  },
  Evidence: {
    relations: "fromEvidenceId", relatedBy: "toEvidenceId", credibilityHistory: "evidenceId", chainLinks: "evidenceId",
    supporting: (evidence, all) => speakers(evidence, all, "SUPPORTS"),
    contradicting: (evidence, all) => speakers(evidence, all, "CONTRADICTS"),
  },
  EvidenceChain: {
    links: "chainId",
    roots: (chain, all) => all.EvidenceChainLink.filter((link) => link.chainId === chain.id && link.parentLinkId === null),
    contradictions: (chain, all) => {
      const used = new Set(all.EvidenceChainLink.filter((link) => link.chainId === chain.id).map((link) => link.evidenceId));
      const touches = (relation) => used.has(relation.fromEvidenceId) || used.has(relation.toEvidenceId);
      return all.EvidenceRelation.filter((relation) => relation.kind === "CONTRADICTS" && touches(relation));
    },
  },
  EvidenceChainLink: { childLinks: "parentLinkId" },
  Agent: { tasks: "assignedAgentId", evidences: "agentId", executions: "agentId" },
  Project: { members: "projectId", tasks: "projectId", evidences: "projectId", evidenceChains: "projectId" },
  User: {
    tasks: "assignedUserId",
    projects: (user, all) => {
      const joined = new Set(all.ProjectMember.filter((member) => member.userId === user.id).map((member) => member.projectId));
      return all.Project.filter((project) => joined.has(project.id));
    },
  },
};

const ORDERS_OF_MANY = { comments: OLDEST_FIRST, members: OLDEST_FIRST, links: BY_POSITION, roots: BY_POSITION, childLinks: BY_POSITION };

function speakers(evidence, all, kind) {
  const spoken = all.EvidenceRelation.filter((relation) => relation.toEvidenceId === evidence.id && relation.kind === kind);
  const ids = new Set(spoken.map((relation) => relation.fromEvidenceId));
  return all.Evidence.filter((other) => ids.has(other.id));
}

const camelCase = (name) => name.toLowerCase().replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

function readSize(size, most) {
  if (size < 0 || size > most) {
    throw new BadInput(`${size} is not between 0 and ${most}`);
  }
  return size;
}

// What a cursor is in the reference: a text that the comparison pairs with the gateway's.
export const MARK = "\u0001cursor ";

export class Reference {
  // `cursors` tells the place of each cursor that the gateway gave out: its type, order and row.
  constructor(schema, rows, cursors) {
    this.schema = schema;
    this.rows = rows;
    this.cursors = cursors;
    this.byId = Object.fromEntries(ENTITIES.map((type) => [type, new Map(rows[type].map((row) => [row.id, row]))]));
    this.related = new Map();
  }

  execute(document, variableValues, operationName) {
    return executeSync({
      schema: this.schema, document, variableValues, operationName,
      fieldResolver: (source, args, _, info) => this.resolve(source, args, info),
    });
  }

  resolve(source, args, { parentType, fieldName, returnType }) {
    const target = getNamedType(returnType).name;
    if (parentType.name === "Query") {
      return this.root(fieldName, args, target);
    }
    if (MANY[parentType.name]?.[fieldName]) {
      return this.connection(target.replace("Connection", ""), () => this.many(source, fieldName), args, ORDERS_OF_MANY[fieldName]);
    }
    if (fieldName === "lineage") {
      return this.lineage(source, args);
    }
    if (parentType.name === "EvidenceChain" && fieldName === "depth") {
      return this.depth(this.many(source, "roots"));
    }
    if (ENTITIES.includes(target) && !(fieldName in source)) {
      return this.one(source, fieldName, target);
    }
    const value = source[fieldName];
    return typeof value === "function" ? value(args) : value;
  }

  root(field, args, target) {
    if (field === "viewer") {
      return { role: "ADMIN", allProjects: true, userId: null, agentId: null };
    }
    if (field === "node") {
      return this.node(args.id);
    }
    if (field === "nodes") {
      const ids = args.ids.map(readUuid);
      return ids.map((id) => this.node(id));
    }
    if (field.endsWith("Aggregate")) {
      return this.aggregate(target.replace("Aggregate", ""), args);
    }
    if (target.endsWith("Connection")) {
      const type = target.replace("Connection", "");
      return this.connection(type, () => this.rows[type], args);
    }
    return this.byId[target].get(readUuid(args.id)) ?? null;
  }

  node(id) {
    const key = readUuid(id);
    return ENTITIES.map((type) => this.byId[type].get(key)).find(Boolean) ?? null;
  }

  one(source, field, target) {
    return this.byId[target].get(source[KEYS_OF_ONE[field] ?? `${field}Id`]) ?? null;
  }

  many(row, field) {
    const how = MANY[row.__typename][field];
    const target = getNamedType(this.schema.getType(row.__typename).getFields()[field].type).name.replace("Connection", "");
    const name = `${row.__typename}.${field}`;
    if (!this.related.has(name)) {
      const index = new Map();
      if (typeof how === "string") {
        for (const other of this.rows[target]) {
          index.set(other[how], [...(index.get(other[how]) ?? []), other]);
        }
      }
      this.related.set(name, index);
    }
    const index = this.related.get(name);
    if (!index.has(row.id)) {
      index.set(row.id, typeof how === "string" ? [] : how(row, this.rows));
    }
    return index.get(row.id);
  }

  // The kind of a column: the name of its scalar, Enum, or Texts.
  kind(type, column) {
    const field = this.schema.getType(type).getFields()[column];
    const named = getNamedType(field.type);
    return isListType(getNullableType(field.type)) ? "Texts" : isEnumType(named) ? "Enum" : named.name;
  }

  // Makes a test of a row out of a filter; what is wrong with the filter shows before any row is looked at.
  filter(type, filter) {
    if (filter === null) {
      throw new BadInput("a filter is null");
    }
    const tests = Object.entries(filter).map(([name, value]) => this.condition(type, name, value));
    return (row) => tests.every((test) => test(row));
  }

  condition(type, name, value) {
    if (value === null) {
      throw new BadInput(`${name} is null`);
    }
    if (name === "not") {
      const test = this.filter(type, value);
      return (row) => !test(row);
    }
    if (name === "and" || name === "or") {
      const tests = value.map((item) => this.filter(type, item));
      return (row) => (name === "and" ? tests.every((test) => test(row)) : tests.some((test) => test(row)));
    }
    const target = getNamedType(this.schema.getType(type).getFields()[name].type).name;
    if (MANY[type]?.[name]) {
      return this.quantified(target.replace("Connection", ""), name, value);
    }
    if (ENTITIES.includes(target)) {
      const test = this.filter(target, value);
      return (row) => {
        const other = this.one(row, name, target);
        return other !== null && test(other);
      };
    }
    const kind = this.kind(type, name);
    const tests = Object.entries(value).map(([operator, operand]) => {
      if (operand === null) {
        throw new BadInput(`${operator} is null`);
      }
      return OPERATORS[operator](operand, kind);
    });
    return (row) => tests.every((test) => test(row[name]));
  }

  quantified(target, name, value) {
    const tests = Object.entries(value).map(([quantifier, inner]) => {
      const test = this.filter(target, inner);
      return {
        some: (rows) => rows.some(test),
        none: (rows) => !rows.some(test),
        every: (rows) => rows.every(test),
      }[quantifier];
    });
    return (row) => tests.every((test) => test(this.many(row, name)));
  }

  // Compares rows in an order: nulls last either way, ties by the id in the direction of the last key.
  comparison(type, order) {
    const last = order.at(-1)?.descending ?? false;
    const keys = [...order, { field: "id", descending: last }].map((key) => ({ ...key, kind: this.kind(type, key.field) }));
    return (a, b) => {
      for (const { field, kind, descending } of keys) {
        const [left, right] = [keyOf(kind, a[field]), keyOf(kind, b[field])];
        const sign = left === null || right === null
          ? Number(left === null) - Number(right === null)
          : compareKeys(left, right) * (descending ? -1 : 1);
        if (sign !== 0) {
          return sign;
        }
      }
      return 0;
    };
  }

  order(type, orderBy, usual) {
    const given = orderBy?.map(({ field, direction }) => ({
      field: camelCase(field), descending: direction === "DESC",
    }));
    return given ?? usual ?? (type === "Agent" ? BY_NAME : NEWEST_FIRST);
  }

  place(cursor, type, order) {
    const place = this.cursors.get(cursor);
    if (place?.type !== type || place.order !== order) {
      throw new BadInput("not a cursor of this list in this order");
    }
    return this.byId[type].get(place.id);
  }

  connection(type, rows, args, usual) {
    if (Number.isInteger(args.first) && Number.isInteger(args.last)) {
      throw new BadInput("first and last at once");
    }
    const backward = Number.isInteger(args.last);
    const size = readSize(args.first ?? args.last ?? 25, MAX_PAGE_SIZE);
    const order = this.order(type, args.orderBy, usual);
    const orderName = order.map(({ field, descending }) => `${field} ${descending ? "DESC" : "ASC"}`).join(",");
    const after = args.after == null ? null : this.place(args.after, type, orderName);
    const before = args.before == null ? null : this.place(args.before, type, orderName);
    const test = args.filter == null ? () => true : this.filter(type, args.filter);
    const compare = this.comparison(type, order);

    let page;
    const take = () => {
      if (!page) {
        const window = rows().filter(test)
          .filter((row) => (!after || compare(row, after) > 0) && (!before || compare(row, before) < 0))
          .sort(compare);
        const start = backward ? Math.max(0, window.length - size) : 0;
        page = { nodes: window.slice(start, start + size), more: window.length > size };
      }
      return page;
    };
    const cursor = (row) => (row ? `${MARK}${JSON.stringify({ type, order: orderName, id: row.id })}` : null);
    return {
      totalCount: () => rows().filter(test).length,
      nodes: () => take().nodes,
      edges: () => take().nodes.map((node) => ({ node, cursor: () => cursor(node) })),
      pageInfo: () => ({
        hasNextPage: () => (backward ? before !== null : take().more),
        hasPreviousPage: () => (backward ? take().more : after !== null),
        startCursor: () => cursor(take().nodes[0]),
        endCursor: () => cursor(take().nodes.at(-1)),
      }),
    };
  }

  // The links on the longest way down from these.
  depth(links) {
    return Math.max(0, ...links.map((link) => 1 + this.depth(this.many(link, "childLinks"))));
  }

  lineage(start, { direction, depth, kinds }) {
    const most = readSize(depth ?? 3, 10);
    const steps = [];
    const reached = new Set([start.id]);
    let edge = [start.id];
    for (let distance = 1; distance <= most && edge.length > 0; distance++) {
      const found = new Map();
      for (const step of edge.flatMap((id) => this.steps(id, direction ?? "UP", kinds ?? []))) {
        const known = found.get(step.evidenceId);
        if (!reached.has(step.evidenceId) && (!known || step.relationId < known.relationId)) {
          found.set(step.evidenceId, { ...step, depth: distance });
        }
      }
      edge = [...found.keys()].sort();
      edge.forEach((id) => reached.add(id));
      steps.push(...edge.map((id) => found.get(id)));
    }
    return steps.slice(0, 200);
  }

  // One step in each way that the walk takes. Evidence points at what it speaks of; only what derives from another
  // points at what it rests on.
  steps(id, direction, kinds) {
    const evidence = { __typename: "Evidence", id };
    const step = (relation, evidenceId, up) => {
      const way = up ? "UP" : "DOWN";
      const taken = (direction === "BOTH" || direction === way) && (kinds.length === 0 || kinds.includes(relation.kind));
      return taken ? [{ evidenceId, relationId: relation.id, kind: relation.kind, direction: way }] : [];
    };
    return [
      ...this.many(evidence, "relations").flatMap((relation) => step(relation, relation.toEvidenceId, relation.kind === "DERIVES_FROM")),
      ...this.many(evidence, "relatedBy").flatMap((relation) => step(relation, relation.fromEvidenceId, relation.kind !== "DERIVES_FROM")),
    ];
  }

  aggregate(type, { filter, groupBy }) {
    const test = filter == null ? () => true : this.filter(type, filter);
    const keys = (groupBy ?? []).map((name) => this.groupKey(type, camelCase(name)));
    if (keys.length > 4) {
      throw new BadInput("too many keys");
    }
    const rows = this.rows[type].filter(test);
    return { ...this.measures(type, rows), groups: ({ first }) => this.groups(type, rows, keys, readSize(first ?? 100, 1000)) };
  }

  // A key of groups: the field that shows it, its kind, and its value in a row.
  groupKey(type, name) {
    const field = this.schema.getType(`${type}AggregateKey`).getFields()[name];
    if (isObjectType(getNamedType(field.type))) {
      return { field: `${name}Id`, kind: "UUID", value: (row) => row[`${name}Id`] };
    }
    if (name.endsWith("Day")) {
      const column = name.slice(0, -"Day".length);
      return { field: name, kind: "DateTime", value: (row) => row[column] && `${row[column].slice(0, 10)}T00:00:00Z` };
    }
    return { field: name, kind: this.kind(type, name), value: (row) => row[name] };
  }

  groups(type, rows, keys, first) {
    const groups = new Map();
    for (const row of rows) {
      const key = keys.map(({ value }) => value(row));
      const name = JSON.stringify(key);
      groups.set(name, { key, rows: [...(groups.get(name)?.rows ?? []), row] });
    }
    const compare = (a, b) => {
      const signs = keys.map(({ kind }, n) => {
        const [left, right] = [keyOf(kind, a.key[n]), keyOf(kind, b.key[n])];
        return left === null || right === null ? Number(left === null) - Number(right === null) : compareKeys(left, right);
      });
      return b.rows.length - a.rows.length || signs.find((sign) => sign !== 0) || 0;
    };
    const nothing = Object.keys(this.schema.getType(`${type}AggregateKey`).getFields())
      .filter((name) => !isObjectType(this.schema.getType(`${type}AggregateKey`).getFields()[name].type));
    const shown = [...groups.values()].sort(compare).slice(0, first);
    return shown.map((group) => ({
      ...this.measures(type, group.rows),
      key: {
        ...Object.fromEntries(nothing.map((name) => [name, null])),
        ...Object.fromEntries(keys.map(({ field }, n) => [field, group.key[n]])),
      },
    }));
  }

  measures(type, rows) {
    const measure = (what, how) => () => {
      const fields = this.schema.getType(`${type}${what}`).getFields();
      return Object.fromEntries(Object.keys(fields).map((name) => [name, () => how(name, this.kind(type, name))]));
    };
    const values = (name) => rows.map((row) => row[name]).filter((value) => value !== null);
    const best = (name, kind, sign) => values(name).reduce((best, value) =>
      best === null || compareKeys(keyOf(kind, value), keyOf(kind, best)) === sign ? value : best, null);
    const sum = (name) => (values(name).length === 0 ? null : values(name).reduce((sum, value) => sum + value, 0));
    return {
      count: rows.length,
      min: measure("Min", (name, kind) => best(name, kind, -1)),
      max: measure("Max", (name, kind) => best(name, kind, 1)),
      avg: measure("Avg", (name) => (sum(name) === null ? null : sum(name) / values(name).length)),
      sum: measure("Sum", sum),
    };
  }
}
