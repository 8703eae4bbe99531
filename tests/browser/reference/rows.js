// All rows, read from PostgreSQL by statements that owe nothing to the gateway's: whole tables, one after another.
import { readFileSync } from "node:fs";

import { isEnumType, getNamedType } from "graphql";
import pg from "pg";

const TABLES = {
  Task: "tasks",
  TaskResult: "task_results",
  TaskComment: "task_comments",
  TaskAttachment: "task_attachments",
  Evidence: "evidence",
  EvidenceRelation: "evidence_relations",
  CredibilityChange: "evidence_credibility_history",
  EvidenceChain: "evidence_chains",
  EvidenceChainLink: "evidence_chain_links",
  Agent: "agents",
  AgentExecution: "agent_executions",
  Project: "projects",
  ProjectMember: "project_members",
  User: "users",
};

export const ENTITIES = Object.keys(TABLES);

// `2015-05-27 00:00:00.5+00` as the gateway writes it: RFC 3339 in UTC with 0, 3 or 6 digits of the second.
function moment(text) {
  const [, date, time, fraction = ""] = /^(\S+) ([\d:]+)(?:\.(\d+))?\+00$/.exec(text);
  const digits = fraction === "" ? "" : `.${fraction.padEnd(fraction.length > 3 ? 6 : 3, "0")}`;
  return `${date}T${time}${digits}Z`;
}

const camelCase = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

// Adds the rows that the sample has none of. Only for a database that is thrown away.
export async function addVariety(client) {
  await client.query(readFileSync(new URL("variety.sql", import.meta.url), "utf8"));
}

export async function connect(address) {
  const client = new pg.Client({ connectionString: address });
  await client.connect();
  await client.query("set timezone = 'UTC'");
  return client;
}

// The rows of each type, under the names and in the spelling of the schema.
export async function readRows(client, schema) {
  const types = { getTypeParser: (oid, format) =>
    oid === pg.types.builtins.TIMESTAMPTZ ? moment : pg.types.getTypeParser(oid, format) };
  const all = {};
  for (const [type, table] of Object.entries(TABLES)) {
    const fields = schema.getType(type).getFields();
    const { rows } = await client.query({ text: `select * from ${table}`, types });
    all[type] = rows
      .filter((row) => !row.deleted_at)
      .map((row) => {
        const object = { __typename: type };
        for (const [column, value] of Object.entries(row)) {
          const field = fields[camelCase(column)];
          const isEnum = field && isEnumType(getNamedType(field.type));
          object[camelCase(column)] = isEnum && value !== null ? value.toUpperCase() : value;
        }
        return object;
      });
  }
  return all;
}
