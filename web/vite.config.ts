// Two pages, one build: the start page (index.html) and GraphiQL (graphiql.html). Everything lands in
// dist/, which the gateway embeds; nothing in it may name another host.
import { defineConfig } from "vite";

export default defineConfig({
  base: "/",
  build: {
    outDir: "dist",
    assetsDir: "assets",
    target: "es2022",
    // The editor is one large chunk on purpose: it is served from the same machine and cached for good.
    chunkSizeWarningLimit: 6000,
    rollupOptions: {
      input: ["index.html", "graphiql.html"],
      onwarn(warning, warn) {
        // "use client" marks mean something to server rendering only; a hundred notes hide real ones.
        if (warning.code !== "MODULE_LEVEL_DIRECTIVE") {
          warn(warning);
        }
      },
    },
  },
  worker: { format: "es" },
  server: {
    // `npm run dev` against a gateway that already runs.
    proxy: Object.fromEntries(
      ["/graphql", "/schema.graphql", "/health", "/metrics"].map((path) => [
        path,
        { target: "http://127.0.0.1:8080", ws: path === "/graphql" },
      ]),
    ),
  },
});
