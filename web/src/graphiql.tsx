// GraphiQL as an ordinary client of this gateway: it speaks to /graphql of the host it came from and
// to nothing else.
import "./workers";
import "graphiql/style.css";
import "./graphiql.css";

import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import { examples } from "./examples";
import { forgetTabs, storage } from "./storage";

function endpoint(scheme: string): string {
  return `${scheme}//${location.host}/graphql`;
}

// The start page links here for people who closed the examples.
if (new URLSearchParams(location.search).has("examples")) {
  forgetTabs();
  history.replaceState(null, "", location.pathname);
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
    storage={storage}
    defaultTabs={examples.map((query) => ({ query }))}
    defaultEditorToolsVisibility={false}
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
