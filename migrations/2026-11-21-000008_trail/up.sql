-- The trail: what happened, for auditors; what is worth telling, for people; what was measured.

-- No foreign keys: the trail outlives what it tells of, and "set null" would have to change it.
create table audit_logs (
    id uuid primary key default gen_random_uuid(),
    seq bigserial not null unique,
    project_id uuid,
    event_type text not null
        constraint audit_logs_event_type_check check (char_length(event_type) between 1 and 100),
    action text not null
        constraint audit_logs_action_check
            check (action in ('create', 'read', 'update', 'delete', 'execute', 'login', 'other')),
    actor_user_id uuid,
    actor_agent_id uuid,
    service_name text
        constraint audit_logs_service_name_check check (char_length(service_name) between 1 and 100),
    resource_type text not null
        constraint audit_logs_resource_type_check check (char_length(resource_type) between 1 and 100),
    resource_id uuid,
    old_values jsonb
        constraint audit_logs_old_values_check check (jsonb_typeof(old_values) = 'object'),
    new_values jsonb
        constraint audit_logs_new_values_check check (jsonb_typeof(new_values) = 'object'),
    data jsonb not null default '{}'
        constraint audit_logs_data_check check (jsonb_typeof(data) = 'object'),
    session_id text
        constraint audit_logs_session_id_check check (char_length(session_id) between 1 and 200),
    request_id text
        constraint audit_logs_request_id_check check (char_length(request_id) between 1 and 200),
    ip_address text
        constraint audit_logs_ip_address_check check (char_length(ip_address) between 1 and 45),
    user_agent text
        constraint audit_logs_user_agent_check check (char_length(user_agent) <= 1000),
    prev_hash text
        constraint audit_logs_prev_hash_check check (prev_hash ~ '^[0-9a-f]{64}$'),
    hash text
        constraint audit_logs_hash_check check (hash ~ '^[0-9a-f]{64}$'),
    created_at timestamptz not null default now()
);

create index audit_logs_created_at_idx on audit_logs (created_at desc, id desc);
create index audit_logs_project_id_idx on audit_logs (project_id, created_at desc, id desc);
create index audit_logs_actor_user_id_idx on audit_logs (actor_user_id, created_at desc, id desc);
create index audit_logs_actor_agent_id_idx on audit_logs (actor_agent_id, created_at desc, id desc);
create index audit_logs_resource_idx on audit_logs (resource_type, resource_id, created_at desc, id desc);
create index audit_logs_event_type_idx on audit_logs (event_type, created_at desc, id desc);

comment on table audit_logs is 'The audit trail: who did what to which row. Entries are chained by hashes.';
comment on column audit_logs.id is 'Identifies the entry.';
comment on column audit_logs.seq is 'The place of the entry in the trail; gaps are possible.';
comment on column audit_logs.project_id is
    'The project in which it happened; null for what concerns the whole platform.';
comment on column audit_logs.event_type is 'What happened, as a short name such as "evidence.verified".';
comment on column audit_logs.action is
    'The kind of action: create, read, update, delete, execute, login or other.';
comment on column audit_logs.actor_user_id is 'The user who did it.';
comment on column audit_logs.actor_agent_id is 'The agent that did it.';
comment on column audit_logs.service_name is 'The service that did it.';
comment on column audit_logs.resource_type is 'The kind of row that it was done to, such as "task".';
comment on column audit_logs.resource_id is 'The row that it was done to.';
comment on column audit_logs.old_values is 'The changed values before, by column.';
comment on column audit_logs.new_values is 'The changed values after, by column.';
comment on column audit_logs.data is 'Further details of the action.';
comment on column audit_logs.session_id is 'The session in which it was done.';
comment on column audit_logs.request_id is 'The request that did it.';
comment on column audit_logs.ip_address is 'The network address of the client.';
comment on column audit_logs.user_agent is 'How the client''s software named itself.';
comment on column audit_logs.prev_hash is
    'The hash of the entry before this one, as 64 hexadecimal digits; null for the first.';
comment on column audit_logs.hash is 'The SHA-256 over this entry and prev_hash, as 64 hexadecimal digits.';
comment on column audit_logs.created_at is 'When the entry was created.';

create table activity_feed (
    id uuid primary key default gen_random_uuid(),
    project_id uuid references projects (id) on delete cascade,
    actor_user_id uuid references users (id) on delete set null,
    actor_agent_id uuid references agents (id) on delete set null,
    activity_type text not null
        constraint activity_feed_activity_type_check check (char_length(activity_type) between 1 and 100),
    title text not null
        constraint activity_feed_title_check check (char_length(title) between 1 and 500),
    description text
        constraint activity_feed_description_check check (char_length(description) <= 20000),
    resource_type text
        constraint activity_feed_resource_type_check check (char_length(resource_type) between 1 and 100),
    resource_id uuid,
    visibility text not null default 'project'
        constraint activity_feed_visibility_check check (visibility in ('public', 'project', 'private')),
    metadata jsonb not null default '{}'
        constraint activity_feed_metadata_check check (jsonb_typeof(metadata) = 'object'),
    created_at timestamptz not null default now()
);

create index activity_feed_created_at_idx on activity_feed (created_at desc, id desc);
create index activity_feed_resource_idx
    on activity_feed (resource_type, resource_id, created_at desc, id desc);
create index activity_feed_project_id_idx on activity_feed (project_id, created_at desc, id desc);
create index activity_feed_actor_user_id_idx on activity_feed (actor_user_id, created_at desc, id desc);
create index activity_feed_actor_agent_id_idx on activity_feed (actor_agent_id, created_at desc, id desc);

comment on table activity_feed is 'What happened, in words for people.';
comment on column activity_feed.id is 'Identifies the activity.';
comment on column activity_feed.project_id is
    'The project in which it happened; null for what concerns the whole platform.';
comment on column activity_feed.actor_user_id is 'The user who did it.';
comment on column activity_feed.actor_agent_id is 'The agent that did it.';
comment on column activity_feed.activity_type is 'What happened, as a short name such as "task.completed".';
comment on column activity_feed.title is 'What happened, in one line.';
comment on column activity_feed.description is 'What happened, at length.';
comment on column activity_feed.resource_type is 'The kind of row that it happened to, such as "task".';
comment on column activity_feed.resource_id is 'The row that it happened to.';
comment on column activity_feed.visibility is
    'Who may see it: public (everybody), project (the members of the project) or private (the one who did it).';
comment on column activity_feed.metadata is
    'Further facts about the activity as a JSON object; nothing in it is interpreted.';
comment on column activity_feed.created_at is 'When the activity was created.';

create table metrics (
    id uuid primary key default gen_random_uuid(),
    project_id uuid references projects (id) on delete cascade,
    agent_id uuid references agents (id) on delete set null,
    name text not null
        constraint metrics_name_check check (char_length(name) between 1 and 100),
    value double precision not null
        constraint metrics_value_check check (value > '-Infinity' and value < 'Infinity'),
    unit text
        constraint metrics_unit_check check (char_length(unit) between 1 and 50),
    tags jsonb not null default '{}'
        constraint metrics_tags_check check (jsonb_typeof(tags) = 'object'),
    measured_at timestamptz not null default now(),
    created_at timestamptz not null default now()
);

create index metrics_created_at_idx on metrics (created_at desc, id desc);
create index metrics_name_idx on metrics (name, measured_at desc, id desc);
create index metrics_tags_idx on metrics using gin (tags jsonb_path_ops);
create index metrics_project_id_idx on metrics (project_id, created_at desc, id desc);
create index metrics_agent_id_idx on metrics (agent_id, created_at desc, id desc);

comment on table metrics is 'A measured number at a point in time.';
comment on column metrics.id is 'Identifies the measurement.';
comment on column metrics.project_id is 'The project that was measured; null for the platform itself.';
comment on column metrics.agent_id is 'The agent that was measured.';
comment on column metrics.name is 'What was measured, such as "test_coverage".';
comment on column metrics.value is 'The measured number, in the given unit.';
comment on column metrics.unit is 'The unit of the number, such as "ms" or "percent".';
comment on column metrics.tags is 'Further dimensions of the measurement, as a JSON object.';
comment on column metrics.measured_at is 'When it was measured.';
comment on column metrics.created_at is 'When the measurement was created.';
