-- The registry of agents. Their executions follow with the tasks that they work on.

create table agents (
    id uuid primary key default gen_random_uuid(),
    external_id text unique
        constraint agents_external_id_check check (char_length(external_id) between 1 and 200),
    name text not null unique
        constraint agents_name_check check (char_length(name) between 1 and 100),
    type text not null
        constraint agents_type_check check (char_length(type) between 1 and 50),
    agent_version text not null
        constraint agents_agent_version_check check (char_length(agent_version) between 1 and 50),
    description text
        constraint agents_description_check check (char_length(description) <= 20000),
    status text not null default 'inactive'
        constraint agents_status_check check (status in ('active', 'inactive', 'maintenance')),
    endpoint_url text
        constraint agents_endpoint_url_check check (char_length(endpoint_url) between 1 and 2048),
    health_check_url text
        constraint agents_health_check_url_check check (char_length(health_check_url) between 1 and 2048),
    capabilities text[] not null default '{}'
        constraint agents_capabilities_check
            check (array_position(capabilities, null) is null and cardinality(capabilities) <= 100
            and octet_length(array_to_string(capabilities, '')) <= 2500),
    configuration jsonb not null default '{}'
        constraint agents_configuration_check check (jsonb_typeof(configuration) = 'object'),
    model_id uuid references models (id) on delete set null,
    last_heartbeat_at timestamptz,
    registered_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1
);

create index agents_created_at_idx on agents (created_at desc, id desc);
create index agents_status_idx on agents (status, created_at desc, id desc);
create index agents_type_idx on agents (type, created_at desc, id desc);
create index agents_last_heartbeat_at_idx on agents (last_heartbeat_at);
create index agents_capabilities_idx on agents using gin (capabilities);
create index agents_model_id_idx on agents (model_id, created_at desc, id desc);

create trigger agents_touch before update on agents
    for each row execute function touch_row();

comment on table agents is 'A program that works on tasks and collects evidence.';
comment on column agents.id is 'Identifies the agent.';
comment on column agents.external_id is
    'The name that another system gave to the agent; unique, so that an import can be repeated.';
comment on column agents.name is 'The unique name, such as "reviewer".';
comment on column agents.type is 'The kind of agent, such as "orchestrator", "codegen" or "security".';
comment on column agents.agent_version is 'The version of the agent''s own software.';
comment on column agents.description is 'What the agent does.';
comment on column agents.status is 'Whether the agent takes work: active, inactive, or in maintenance.';
comment on column agents.endpoint_url is 'The address at which the agent takes requests.';
comment on column agents.health_check_url is 'The address that tells whether the agent is well.';
comment on column agents.capabilities is 'What the agent can do, as short names such as "code_review".';
comment on column agents.configuration is 'The agent''s settings as a JSON object. Never secrets.';
comment on column agents.model_id is 'The AI model that the agent uses.';
comment on column agents.last_heartbeat_at is 'When the agent last reported that it is alive.';
comment on column agents.registered_at is 'When the agent joined the registry.';
comment on column agents.created_at is 'When the agent was created.';
comment on column agents.updated_at is 'When the agent was last changed; the database sets it.';
comment on column agents.deleted_at is
    'When the agent was deleted. Deleted rows are kept but are no longer shown.';
comment on column agents.version is
    'Counts the changes of the agent from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';
