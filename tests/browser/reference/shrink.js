// Makes a failing document smaller: whatever can go without the failure going goes.
import { Kind, parse, print, validate, visit } from "graphql";

// Removes the n-th thing that can be removed; null when there is none.
function without(document, n) {
  let place = -1;
  const changed = visit(document, {
    enter(node, key, parent) {
      const removable = [Kind.FIELD, Kind.INLINE_FRAGMENT, Kind.FRAGMENT_SPREAD, Kind.ARGUMENT, Kind.DIRECTIVE, Kind.OBJECT_FIELD];
      const last = Array.isArray(parent) && parent.length === 1 && node.kind !== Kind.ARGUMENT && node.kind !== Kind.DIRECTIVE && node.kind !== Kind.OBJECT_FIELD;
      if (removable.includes(node.kind) && !last && ++place === n) {
        return null;
      }
      return undefined;
    },
  });
  return place >= n ? tidy(changed) : null;
}

// Removes fragments and variables that nothing uses any more.
function tidy(document) {
  for (;;) {
    const used = new Set();
    visit(document, {
      FragmentSpread: (node) => void used.add(node.name.value),
      Variable: (node, key, parent) => void (parent.kind === Kind.VARIABLE_DEFINITION || used.add(`$${node.name.value}`)),
    });
    const kept = visit(document, {
      FragmentDefinition: (node) => (used.has(node.name.value) ? undefined : null),
      VariableDefinition: (node) => (used.has(`$${node.variable.name.value}`) ? undefined : null),
    });
    if (print(kept) === print(document)) {
      return kept;
    }
    document = kept;
  }
}

// `fails` tells whether a query still fails.
export async function shrink(schema, query, fails, tries = 400) {
  let document = parse(query);
  let n = 0;
  while (tries-- > 0) {
    const smaller = without(document, n);
    if (!smaller) {
      break;
    }
    if (validate(schema, smaller).length === 0 && (await fails(print(smaller)))) {
      document = smaller;
    } else {
      n++;
    }
  }
  return print(document);
}
