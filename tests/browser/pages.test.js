// The two pages in a real browser: they work, and they talk to nobody but the gateway.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";

import { base, changeATask, examples, foreign, launch, open, queries, subscriptions } from "./harness.js";

const artifacts = fileURLToPath(new URL("./artifacts/", import.meta.url));
const RUN_BUTTON = ".graphiql-execute-button";
const TABS = ".graphiql-tab";

let browser;

before(async () => {
  mkdirSync(artifacts, { recursive: true });
  browser = await launch();
});

after(async () => {
  await browser?.close();
});

// GraphiQL with its schema loaded, so that what follows is not a race with introspection.
async function openGraphiql(path = "/graphiql") {
  const opened = await open(browser, path);
  await opened.page.locator(RUN_BUTTON).waitFor();
  await opened.page.locator(".graphiql-query-editor .view-line").first().waitFor();
  await opened.page.locator(".graphiql-spinner").waitFor({ state: "detached" });
  return opened;
}

// Presses the button and returns the request of this operation with its parsed answer. GraphiQL notices the
// operation's name a moment after a tab is opened, so a press that came too early is repeated.
async function run(page, operation) {
  for (let attempt = 1; ; attempt++) {
    const [response] = await Promise.all([
      page.waitForResponse((each) => (each.request().postData() ?? "").includes(`query ${operation}`)),
      page.locator(RUN_BUTTON).click(),
    ]);
    const request = response.request();
    const answer = await response.json();
    if (request.postDataJSON().operationName === operation || attempt === 20) {
      return { request, answer };
    }
    await page.waitForTimeout(100);
  }
}

test("GraphiQL opens with the examples as tabs and runs the first", async () => {
  const { context, page, seen } = await openGraphiql();
  const names = examples.map(({ name }) => name);
  const tabs = await page.locator(TABS).allInnerTexts();
  assert.deepEqual(tabs.map((text) => text.trim()), names);

  const { answer } = await run(page, names[0]);
  assert.equal(answer.errors, undefined, JSON.stringify(answer.errors, null, 2));
  await page.locator(".graphiql-response .view-line", { hasText: "RUSTSEC" }).first().waitFor();
  await page.screenshot({ path: `${artifacts}graphiql.png` });

  assert.deepEqual(foreign(seen.requests), []);
  assert.deepEqual(seen.complaints, []);
  await context.close();
});

test("the editor finds nothing wrong with any example", async () => {
  const { context, page } = await openGraphiql();
  for (const { name } of queries) {
    await page.locator(TABS, { hasText: name }).first().click();
    const { answer } = await run(page, name);
    assert.equal(answer.errors, undefined, `${name}: ${JSON.stringify(answer.errors)}`);
    assert.equal(await page.locator(".graphiql-query-editor .squiggly-error").count(), 0, name);
  }
  await context.close();
});

test("GraphiQL follows a subscription, over a socket", async () => {
  const { context, page, seen } = await openGraphiql();
  for (const { name } of subscriptions) {
    await page.locator(TABS, { hasText: name }).first().click();
    const event = page.locator(".graphiql-response .view-line", { hasText: "UPDATED" }).first();
    const stop = changeATask();
    try {
      // The button runs what the editor had a moment ago: perhaps another tab's query.
      for (let attempt = 0; !(await event.isVisible()); attempt += 1) {
        assert.ok(attempt < 10, `${name}: nothing comes`);
        await page.locator(RUN_BUTTON).click();
        await event.waitFor({ timeout: 3_000 }).catch(() => {});
      }
    } finally {
      await stop();
    }
    assert.equal(await page.locator(".graphiql-query-editor .squiggly-error").count(), 0, name);
    await page.locator(RUN_BUTTON).click();
  }
  assert.ok(seen.requests.some((address) => address.startsWith("ws")), seen.requests.join("\n"));
  assert.deepEqual(foreign(seen.requests), []);
  assert.deepEqual(seen.complaints, []);
  await context.close();
});

test("a header typed into the editor is sent, and is not kept", async () => {
  const { context, page } = await openGraphiql();
  await page.getByRole("button", { name: "Headers", exact: true }).click();
  const headers = page.getByRole("region", { name: "Headers" });
  await headers.locator(".graphiql-editor:not(.hidden) .view-lines").click();
  await page.keyboard.insertText('{"X-Browser-Test": "yes"}');
  const { request } = await run(page, examples[0].name);
  assert.equal(request.headers()["x-browser-test"], "yes");

  const stored = await page.evaluate(() => JSON.stringify(localStorage));
  assert.ok(!stored.includes("X-Browser-Test"), "a header, which may be a token, was written to disk");
  await context.close();
});

test("?examples brings closed examples back", async () => {
  const { context, page } = await openGraphiql();
  await page.locator(".graphiql-tab-close").first().click();
  await page.waitForFunction(
    ([selector, count]) => document.querySelectorAll(selector).length === count,
    [TABS, examples.length - 1],
  );
  await page.goto(`${base}/graphiql?examples`);
  await page.locator(TABS).nth(examples.length - 1).waitFor();
  assert.equal(await page.locator(TABS).count(), examples.length);
  assert.equal(new URL(page.url()).search, "");
  await context.close();
});

test("the start page is clean and its links lead somewhere", async () => {
  const { context, page, response, seen } = await open(browser, "/");
  assert.equal(response.status(), 200);
  assert.equal(await page.locator("h1").innerText(), "evidence-gateway");
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.screenshot({ path: `${artifacts}console-${scheme}.png`, fullPage: true });
  }
  const links = await page.locator("a").evaluateAll((all) => all.map((link) => link.href));
  for (const link of links) {
    assert.equal(new URL(link).origin, base, `${link} leaves the gateway`);
    assert.equal((await fetch(link)).status, 200, link);
  }
  assert.deepEqual(foreign(seen.requests), []);
  assert.deepEqual(seen.complaints, []);
  await context.close();
});
