// What the browser tests share: the gateway's address, the examples, and a page that records all it does.
import { existsSync, readFileSync, readdirSync } from "node:fs";

import { chromium } from "playwright-core";

if (!process.env.BASE_URL) {
  throw new Error("BASE_URL is not set; start the tests with tests/browser/run");
}
export const base = new URL(process.env.BASE_URL).origin;

const folder = new URL("../../web/examples/", import.meta.url);
export const examples = readdirSync(folder)
  .filter((file) => file.endsWith(".graphql"))
  .sort()
  .map((file) => {
    const query = readFileSync(new URL(file, folder), "utf8");
    const [, kind, name] = /^(query|subscription) (\w+)/m.exec(query) ?? [];
    return { file, query, kind, name };
  });

export const queries = examples.filter(({ kind }) => kind === "query");
export const subscriptions = examples.filter(({ kind }) => kind === "subscription");

// One answer, which must have no errors.
export async function ask(query, variables) {
  const response = await fetch(`${base}/graphql`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) {
    throw new Error(JSON.stringify(errors));
  }
  return data;
}

// Changes a task again and again until it is told to stop.
export function changeATask() {
  let stopped = false;
  const changing = (async () => {
    const { tasks } = await ask("{ tasks(first: 1) { nodes { id title } } }");
    const [{ id, title }] = tasks.nodes;
    const change = (title) =>
      ask("mutation ($id: UUID!, $title: String!) { updateTask(input: { id: $id, title: $title }) { id } }", { id, title });
    for (let n = 0; !stopped; n += 1) {
      await change(`${title} (${n})`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    await change(title);
  })();
  return () => {
    stopped = true;
    return changing;
  };
}

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export async function launch() {
  const executablePath = process.env.CHROMIUM || CHROMIUM.find((path) => existsSync(path));
  if (!executablePath) {
    throw new Error("no Chromium found; set CHROMIUM to its path");
  }
  return chromium.launch({
    executablePath,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

// A fresh profile with one page. `seen` collects each address it asked for and each complaint it made.
export async function open(browser, path) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 } });
  const seen = { requests: [], complaints: [] };
  context.on("request", (request) => seen.requests.push(request.url()));
  context.on("requestfailed", (request) => seen.complaints.push(`${request.url()} failed`));
  const page = await context.newPage();
  page.on("websocket", (socket) => seen.requests.push(socket.url()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") {
      seen.complaints.push(message.text());
    }
  });
  const response = await page.goto(base + path, { waitUntil: "load" });
  return { context, page, response, seen };
}

// Addresses with a network behind them that are not the gateway's own.
export function foreign(requests) {
  const { host } = new URL(base);
  return requests.filter((address) => {
    const url = new URL(address);
    return !["data:", "blob:"].includes(url.protocol) && url.host !== host;
  });
}
