// GraphiQL as an ordinary client of this gateway: it speaks to /graphql of the host it came from and
// to nothing else.
import "./workers";
import "graphiql/style.css";
import "./graphiql.css";

import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import { examples } from "./examples";

// GraphiQL remembers the tabs of the last visit and then ignores `defaultTabs`; `?examples` forgets them.
const TABS_KEY = "graphiql:tabState";
const EDITOR_KEYS = ["graphiql:query", "graphiql:variables", "graphiql:headers", "graphiql:operationName"];

function forgetTabs(): void {
  for (const key of [TABS_KEY, ...EDITOR_KEYS]) {
    localStorage.removeItem(key);
  }
  history.replaceState(null, "", location.pathname);
}

function endpoint(scheme: string): string {
  return `${scheme}//${location.host}/graphql`;
}

if (new URLSearchParams(location.search).has("examples")) {
  forgetTabs();
}

const fetcher = createGraphiQLFetcher({
  url: endpoint(location.protocol),
  subscriptionUrl: endpoint(location.protocol === "https:" ? "wss:" : "ws:"),
});

const root = document.getElementById("graphiql");
if (!root) {
  throw new Error("graphiql.html has no #graphiql");
}

createRoot(root).render(
  <GraphiQL
    fetcher={fetcher}
    defaultTabs={examples.map((query) => ({ query }))}
    defaultEditorToolsVisibility="headers"
    inputValueDeprecation
    isHeadersEditorEnabled
    shouldPersistHeaders={false}
  >
    <GraphiQL.Logo>
      <a className="home" href="/">
        evidence-gateway
      </a>
    </GraphiQL.Logo>
  </GraphiQL>,
);
