// Every worked example is valid against the real schema and answers.
import assert from "node:assert/strict";
import { test } from "node:test";

import { base, changeATask, examples, queries, subscriptions } from "./harness.js";

test("there are examples, each with a name of its own for its tab", () => {
  assert.ok(examples.length >= 6);
  const names = examples.map(({ name }) => name);
  assert.ok(names.every(Boolean), `an example has no operation name: ${names}`);
  assert.equal(new Set(names).size, names.length);
});

for (const { file, query } of queries) {
  test(`${file} answers without errors`, async () => {
    const response = await fetch(`${base}/graphql`, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/graphql-response+json" },
      body: JSON.stringify({ query }),
    });
    const answer = await response.json();
    assert.equal(answer.errors, undefined, JSON.stringify(answer.errors, null, 2));
    assert.equal(response.status, 200);
    // An example that shows nothing teaches nothing.
    for (const [field, value] of Object.entries(answer.data)) {
      const rows = value.nodes ?? value.edges ?? value.groups;
      assert.ok(rows.length > 0, `${field} is empty`);
    }
  });
}

for (const { file, query } of subscriptions) {
  test(`${file} is told of changes`, async () => {
    const enough = new AbortController();
    const response = await fetch(`${base}/graphql/stream?${new URLSearchParams({ query })}`, {
      headers: { accept: "text/event-stream" },
      signal: enough.signal,
    });
    assert.equal(response.status, 200);
    const stop = changeATask();
    let text = "";
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (text.includes("event: next") && text.endsWith("\n\n")) {
        break;
      }
    }
    enough.abort();
    await stop();
    const event = JSON.parse(/^data: (.*)$/m.exec(text)[1]);
    assert.equal(event.errors, undefined, text);
    assert.ok(Object.values(event.data).every(Boolean), text);
  });
}
