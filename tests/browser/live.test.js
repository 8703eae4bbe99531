// The clients that people have: each follows a task over a connection that is cut twice, and must have been told of
// every change once, in order. Between them and the gateway stands a proxy that can cut.
import assert from "node:assert/strict";
import net from "node:net";
import { after, before, test } from "node:test";

import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client/core";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { createClient as createSse } from "graphql-sse";
import { createClient as createWs } from "graphql-ws";
import WebSocket from "ws";

import { ask, base, launch } from "./harness.js";

const CHANGES = 24;
const CUTS = [8, 16];
const FOLLOW = `subscription Follow($id: UUID!, $after: String) {
  taskChanged(filter: { id: { eq: $id } }, after: $after) { cursor operation changedFields }
}`;

const proxy = { open: new Set(), cuts: 0 };

before(async () => {
  const { hostname, port } = new URL(base);
  proxy.server = net.createServer((client) => {
    const gateway = net.connect(Number(port), hostname);
    for (const socket of [client, gateway]) {
      proxy.open.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        proxy.open.delete(socket);
        client.destroy();
        gateway.destroy();
      });
    }
    client.pipe(gateway).pipe(client);
  });
  await new Promise((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
  proxy.host = `127.0.0.1:${proxy.server.address().port}`;
});

function cut() {
  proxy.cuts += 1;
  for (const socket of proxy.open) {
    socket.destroy();
  }
}

after(() => {
  proxy.server.close();
  cut();
});

const http = () => `http://${proxy.host}`;
const again = { retryAttempts: 20, retryWait: () => new Promise((resolve) => setTimeout(resolve, 50)) };
const overWs = (more = {}) =>
  createWs({ url: `ws://${proxy.host}/graphql`, webSocketImpl: WebSocket, ...again, ...more });
const overSse = (singleConnection) =>
  createSse({ url: `${http()}/graphql/stream`, singleConnection, retryAttempts: 20, retry: again.retryWait });

// `start(variables, sink)` subscribes and gives back what ends it. Clients that try again by themselves send the
// variables as they are by then; others report an error, and are started again.
async function follow(start) {
  const { tasks } = await ask("{ tasks(first: 1) { nodes { id } } }");
  const variables = { id: tasks.nodes[0].id, after: null };
  const cursors = [];
  let stop = () => {};
  let fail;
  let told;
  const enough = new Promise((resolve, reject) => {
    told = resolve;
    fail = reject;
  });
  const sink = {
    next({ data, errors }) {
      const event = data?.taskChanged;
      if (errors?.length || event?.operation !== "UPDATED") {
        fail(new Error(JSON.stringify({ data, errors })));
        return;
      }
      cursors.push(event.cursor);
      variables.after = event.cursor;
      if (CUTS.includes(cursors.length)) {
        cut();
      }
      if (cursors.length === CHANGES) {
        told();
      }
    },
    error: () => setTimeout(begin, 50),
    complete: () => {},
  };
  let over = false;
  async function begin() {
    if (!over) {
      stop = await start(variables, sink);
    }
  }
  // Where to begin is known before anything changes.
  variables.after = (await ask("{ changeCursor }")).changeCursor;
  await begin();
  const late = setTimeout(() => fail(new Error(`${cursors.length} events came`)), 60_000);
  try {
    for (let n = 0; n < CHANGES; n += 1) {
      await ask(`mutation { updateTask(input: { id: "${variables.id}", title: "${n}" }) { id } }`);
    }
    await enough;
    // Nothing comes twice.
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(cursors.length, CHANGES);
    assert.equal(new Set(cursors).size, CHANGES);
  } finally {
    over = true;
    clearTimeout(late);
    stop();
  }
}

test("graphql-ws", async () => {
  const client = overWs({ shouldRetry: () => true });
  await follow((variables, sink) => client.subscribe({ query: FOLLOW, variables }, sink));
  await client.dispose();
});

for (const single of [false, true]) {
  test(`graphql-sse, ${single ? "single connection" : "distinct connections"}`, async () => {
    const client = overSse(single);
    await follow((variables, sink) => client.subscribe({ query: FOLLOW, variables }, sink));
    client.dispose();
  });
}

function apollo(link) {
  const client = new ApolloClient({ link: ApolloLink.from([link]), cache: new InMemoryCache() });
  return (variables, sink) => {
    const results = client.subscribe({ query: gql(FOLLOW), variables: { ...variables }, fetchPolicy: "no-cache" });
    const started = results.subscribe({
      next: ({ data, error }) => (error ? sink.error(error) : sink.next({ data })),
      error: sink.error,
      complete: sink.complete,
    });
    return () => started.unsubscribe();
  };
}

test("Apollo Client over graphql-ws", async () => {
  const client = overWs({ retryAttempts: 0 });
  await follow(apollo(new GraphQLWsLink(client)));
  await client.dispose();
});

test("Apollo Client over multipart", () => follow(apollo(new HttpLink({ uri: `${http()}/graphql` }))));

function urql(options) {
  const client = new Client({ url: `${http()}/graphql`, preferGetMethod: false, ...options });
  return (variables, sink) => {
    const { unsubscribe } = client.subscription(FOLLOW, { ...variables }).subscribe(({ data, error }) => {
      if (data) {
        sink.next({ data });
      } else if (error) {
        unsubscribe();
        sink.error(error);
      }
    });
    return unsubscribe;
  };
}

test("urql over graphql-ws", async () => {
  const client = overWs({ retryAttempts: 0 });
  const forwardSubscription = ({ query, variables }) => ({
    subscribe: (sink) => ({ unsubscribe: client.subscribe({ query, variables }, sink) }),
  });
  await follow(urql({ exchanges: [fetchExchange, subscriptionExchange({ forwardSubscription })] }));
  await client.dispose();
});

test("urql over fetch", () => follow(urql({ exchanges: [fetchExchange], fetchSubscriptions: true })));

// Nobody helps it: the browser comes back by itself, with the id of the last event.
test("EventSource of a browser", async () => {
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(`${http()}/health/live`);
    let tell = () => {};
    await page.exposeFunction("tell", (data) => tell(JSON.parse(data)));
    await follow(async (variables, sink) => {
      tell = (body) => sink.next(body);
      // It goes on from the ids alone, so the address says where it begins.
      const address = `/graphql/stream?${new URLSearchParams({
        query: `subscription ($id: UUID!) { taskChanged(filter: { id: { eq: $id } }) { cursor operation changedFields } }`,
        variables: JSON.stringify({ id: variables.id }),
      })}`;
      await page.evaluate(
        (url) =>
          new Promise((resolve) => {
            const source = new EventSource(url);
            source.addEventListener("next", (event) => globalThis.tell(event.data));
            source.addEventListener("open", resolve);
          }),
        address,
      );
      // It is cut before anything has come, and misses nothing of what is done before it is back.
      await new Promise((resolve) => setTimeout(resolve, 500));
      cut();
      return () => {};
    });
  } finally {
    await browser.close();
  }
});

// What a client wants to know first: that it is spoken to in its own protocol, for every kind of operation.
test("queries and mutations go over sockets, too", async () => {
  for (const client of [overWs(), overSse(false), overSse(true)]) {
    const results = [];
    for await (const result of client.iterate({ query: "{ agents { totalCount } }" })) {
      results.push(result);
    }
    assert.deepEqual(results, [{ data: { agents: { totalCount: 10 } } }]);
    await assert.rejects(async () => {
      for await (const result of client.iterate({ query: "{ nothing }" })) {
        if (result.errors) {
          throw new Error(result.errors[0].message);
        }
      }
    });
    await client.dispose();
  }
});

test("a live query is answered again when its answer changes", async () => {
  const { tasks } = await ask("{ tasks(first: 1) { nodes { id } } }");
  const { id } = tasks.nodes[0];
  const query = `query @live(throttleMs: 10) { task(id: "${id}") { title } }`;
  for (const [n, client] of [overWs(), overSse(false), overSse(true)].entries()) {
    const title = `live ${n}`;
    const titles = [];
    for await (const { data } of client.iterate({ query })) {
      titles.push(data.task.title);
      if (titles.length === 1) {
        await ask(`mutation { updateTask(input: { id: "${id}", title: "${title}" }) { id } }`);
      } else if (data.task.title === title) {
        break;
      }
    }
    assert.equal(titles.length, 2);
    await client.dispose();
  }
});
