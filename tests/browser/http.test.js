// GraphQL over HTTP, as the audits of the package graphql-http judge it: every one of them, the optional ones too.
import assert from "node:assert/strict";
import { test } from "node:test";
import { serverAudits } from "graphql-http";
import { base } from "./harness.js";

const audits = serverAudits({ url: `${base}/graphql`, fetchFn: fetch });

test("graphql-http has the audits that we know of", () => assert.equal(audits.length, 61));

for (const audit of audits) {
  test(`${audit.id} ${audit.name}`, async () => {
    const result = await audit.fn();
    assert.equal(result.status, "ok", result.reason);
  });
}
