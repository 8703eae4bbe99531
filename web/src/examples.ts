// The worked examples, in the order of their file names. They are files of their own so that the
// tests can run each of them against the real gateway.
const files = import.meta.glob<string>("../examples/*.graphql", {
  query: "?raw",
  import: "default",
  eager: true,
});

export const examples: readonly string[] = Object.keys(files)
  .sort()
  .map((name) => files[name] ?? "");
