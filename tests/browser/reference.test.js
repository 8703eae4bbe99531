// The gateway against graphql-js: random documents over the schema, answered by both from the same rows.
//   REFERENCE_SEED        the seed, to repeat a run
//   REFERENCE_DOCUMENTS   how many documents
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { before, test } from "node:test";

import {
  assertValidSchema, buildClientSchema, buildSchema, getIntrospectionQuery, lexicographicSortSchema, parse, printSchema,
} from "graphql";

import { base } from "./harness.js";
import { Cursors, difference, errorDifference } from "./reference/compare.js";
import { Documents, randomFrom } from "./reference/documents.js";
import { Reference } from "./reference/resolvers.js";
import { addVariety, connect, readRows } from "./reference/rows.js";
import { shrink } from "./reference/shrink.js";

const seed = Number(process.env.REFERENCE_SEED ?? Math.floor(Math.random() * 2 ** 32));
const documents = Number(process.env.REFERENCE_DOCUMENTS ?? 300);

// Without the database there are no rows to compare with: BASE_URL alone names a gateway that is somebody's own.
const skip = process.env.DATABASE_URL ? false : "DATABASE_URL is not set";

const sdl = readFileSync(new URL("../../schema.graphql", import.meta.url), "utf8");
const schema = buildSchema(sdl);

async function ask(request) {
  const response = await fetch(`${base}/graphql`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/graphql-response+json" },
    body: JSON.stringify(request),
  });
  return { status: response.status, ...(await response.json()) };
}

let reference;
let cursors;
let rows;

before(async () => {
  if (skip) {
    return;
  }
  const client = await connect(process.env.DATABASE_URL);
  await addVariety(client);
  rows = await readRows(client, schema);
  await client.end();
  cursors = new Cursors();
  reference = new Reference(schema, rows, cursors);
});

// Some ask for all descendants of all descendants, which the gateway refuses.
let tooLarge = 0;

// How the two answers to a request differ, or null.
async function mismatch({ query, variables, operationName }) {
  const actual = await ask({ query, variables, operationName });
  const expected = JSON.parse(JSON.stringify(reference.execute(parse(query), variables, operationName)));
  if (actual.status === 400 && actual.errors[0].extensions.limit === "max_complexity") {
    tooLarge += 1;
    return null;
  }
  if (actual.status !== 200) {
    return `the status is ${actual.status}: ${JSON.stringify(actual.errors)}`;
  }
  return difference(expected.data, actual.data, cursors) ?? errorDifference(expected.errors, actual.errors);
}

async function compare(request, title) {
  const found = await mismatch(request);
  if (found) {
    const small = await shrink(schema, request.query, async (query) => (await mismatch({ ...request, query })) !== null);
    const why = await mismatch({ ...request, query: small });
    assert.fail(`${title}: ${found}\n${JSON.stringify(request.variables)}\n${request.query}\nshrunk: ${why}\n${small}`);
  }
}

test("the schema is valid, and what introspection tells is schema.graphql", async () => {
  const { data, errors } = await ask({ query: getIntrospectionQuery({ specifiedByUrl: true }) });
  assert.equal(errors, undefined);
  const told = buildClientSchema(data);
  assertValidSchema(told);
  const lines = [told, schema].map((one) => printSchema(lexicographicSortSchema(one)).split("\n"));
  const place = lines[0].findIndex((line, n) => line !== lines[1][n]);
  assert.equal(place, -1, `${lines[0].slice(place - 3, place + 5).join("\n")}\nis not\n${lines[1].slice(place - 3, place + 5).join("\n")}`);
  assert.equal(lines[0].length, lines[1].length);
});

test("random documents answer as graphql-js answers them", { skip }, async (t) => {
  t.diagnostic(`REFERENCE_SEED=${seed} REFERENCE_DOCUMENTS=${documents}`);
  const generator = new Documents(schema, rows, cursors.byType, randomFrom(seed));
  for (let n = 0; n < documents; n++) {
    // Every third document has wrong arguments among the right ones.
    await compare(generator.next(n % 3 === 2 ? 0.15 : 0), `seed ${seed}, document ${n}`);
  }
  assert.ok(tooLarge <= documents / 20, `seed ${seed}: ${tooLarge} documents were refused`);
});
