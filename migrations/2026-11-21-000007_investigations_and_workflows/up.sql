-- Longer work: investigations that answer one question, and workflows that run step by step.

create table investigations (
    id uuid primary key default gen_random_uuid(),
    external_id text unique
        constraint investigations_external_id_check check (char_length(external_id) between 1 and 200),
    project_id uuid not null references projects (id),
    task_id uuid references tasks (id) on delete set null,
    user_id uuid references users (id) on delete set null,
    agent_id uuid references agents (id) on delete set null,
    query text not null
        constraint investigations_query_check check (char_length(query) between 1 and 20000),
    status text not null default 'pending'
        constraint investigations_status_check
            check (status in ('pending', 'processing', 'completed', 'error')),
    results jsonb
        constraint investigations_results_check check (jsonb_typeof(results) = 'object'),
    metadata jsonb not null default '{}'
        constraint investigations_metadata_check check (jsonb_typeof(metadata) = 'object'),
    error_message text
        constraint investigations_error_message_check check (char_length(error_message) <= 20000),
    confidence_score double precision
        constraint investigations_confidence_score_check check (confidence_score between 0 and 1),
    anomalies_found integer not null default 0
        constraint investigations_anomalies_found_check check (anomalies_found >= 0),
    processing_time_ms integer
        constraint investigations_processing_time_ms_check check (processing_time_ms >= 0),
    completed_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1
);

create index investigations_created_at_idx on investigations (created_at desc, id desc);
create index investigations_status_idx on investigations (status, created_at desc, id desc);
create index investigations_confidence_score_idx on investigations (confidence_score desc, id desc);
create index investigations_project_id_idx on investigations (project_id, created_at desc, id desc);
create index investigations_task_id_idx on investigations (task_id, created_at desc, id desc);
create index investigations_user_id_idx on investigations (user_id, created_at desc, id desc);
create index investigations_agent_id_idx on investigations (agent_id, created_at desc, id desc);

create trigger investigations_touch before update on investigations
    for each row execute function touch_row();

comment on table investigations is 'One question that agents look into, with what they found.';
comment on column investigations.id is 'Identifies the investigation.';
comment on column investigations.external_id is
    'The name that another system gave to the investigation; unique, so that an import can be repeated.';
comment on column investigations.project_id is 'The project that the investigation belongs to.';
comment on column investigations.task_id is 'The task that the investigation is for.';
comment on column investigations.user_id is 'The user who asked.';
comment on column investigations.agent_id is 'The agent that leads the investigation.';
comment on column investigations.query is 'The question as it was asked.';
comment on column investigations.status is
    'How far the investigation is: pending, processing, completed or error.';
comment on column investigations.results is 'What was found, as a JSON object.';
comment on column investigations.metadata is
    'Further facts about the investigation as a JSON object; nothing in it is interpreted.';
comment on column investigations.error_message is 'Why the investigation ended with an error.';
comment on column investigations.confidence_score is
    'How sure the results are, from 0.0 (a guess) to 1.0 (certain).';
comment on column investigations.anomalies_found is 'The number of anomalies that were found.';
comment on column investigations.processing_time_ms is 'How long the investigation took, in milliseconds.';
comment on column investigations.completed_at is 'When the investigation ended.';
comment on column investigations.created_at is 'When the investigation was created.';
comment on column investigations.updated_at is
    'When the investigation was last changed; the database sets it.';
comment on column investigations.deleted_at is
    'When the investigation was deleted. Deleted rows are kept but are no longer shown.';
comment on column investigations.version is
    'Counts the changes of the investigation from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table workflows (
    id uuid primary key default gen_random_uuid(),
    external_id text unique
        constraint workflows_external_id_check check (char_length(external_id) between 1 and 200),
    project_id uuid not null references projects (id),
    name text not null
        constraint workflows_name_check check (char_length(name) between 1 and 200),
    description text
        constraint workflows_description_check check (char_length(description) <= 20000),
    status text not null default 'draft'
        constraint workflows_status_check check (status in ('draft', 'active', 'archived')),
    definition jsonb not null default '{}'
        constraint workflows_definition_check check (jsonb_typeof(definition) = 'object'),
    metadata jsonb not null default '{}'
        constraint workflows_metadata_check check (jsonb_typeof(metadata) = 'object'),
    created_by_user_id uuid references users (id) on delete set null,
    created_by_agent_id uuid references agents (id) on delete set null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1
);

create index workflows_created_at_idx on workflows (created_at desc, id desc);
create index workflows_status_idx on workflows (status, created_at desc, id desc);
create index workflows_project_id_idx on workflows (project_id, created_at desc, id desc);
create index workflows_created_by_user_id_idx on workflows (created_by_user_id, created_at desc, id desc);
create index workflows_created_by_agent_id_idx on workflows (created_by_agent_id, created_at desc, id desc);

create trigger workflows_touch before update on workflows
    for each row execute function touch_row();

comment on table workflows is 'A plan of steps that can be run again and again.';
comment on column workflows.id is 'Identifies the workflow.';
comment on column workflows.external_id is
    'The name that another system gave to the workflow; unique, so that an import can be repeated.';
comment on column workflows.project_id is 'The project that the workflow belongs to.';
comment on column workflows.name is 'The name that is shown to people.';
comment on column workflows.description is 'What the workflow is for.';
comment on column workflows.status is 'Whether the workflow may run: draft, active or archived.';
comment on column workflows.definition is 'The steps and how they follow each other, as a JSON object.';
comment on column workflows.metadata is
    'Further facts about the workflow as a JSON object; nothing in it is interpreted.';
comment on column workflows.created_by_user_id is 'The user who created the workflow.';
comment on column workflows.created_by_agent_id is 'The agent that created the workflow.';
comment on column workflows.created_at is 'When the workflow was created.';
comment on column workflows.updated_at is 'When the workflow was last changed; the database sets it.';
comment on column workflows.deleted_at is
    'When the workflow was deleted. Deleted rows are kept but are no longer shown.';
comment on column workflows.version is
    'Counts the changes of the workflow from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table workflow_executions (
    id uuid primary key default gen_random_uuid(),
    workflow_id uuid not null references workflows (id) on delete cascade,
    project_id uuid not null references projects (id),
    task_id uuid references tasks (id) on delete set null,
    started_by_user_id uuid references users (id) on delete set null,
    started_by_agent_id uuid references agents (id) on delete set null,
    status text not null default 'pending'
        constraint workflow_executions_status_check
            check (status in ('pending', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
    current_step text
        constraint workflow_executions_current_step_check check (char_length(current_step) between 1 and 200),
    input jsonb not null default '{}'
        constraint workflow_executions_input_check check (jsonb_typeof(input) = 'object'),
    result jsonb,
    error_message text
        constraint workflow_executions_error_message_check check (char_length(error_message) <= 20000),
    started_at timestamptz,
    finished_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    version integer not null default 1,
    constraint workflow_executions_times_check check (finished_at >= started_at)
);

create index workflow_executions_created_at_idx on workflow_executions (created_at desc, id desc);
create index workflow_executions_status_idx on workflow_executions (status, created_at desc, id desc);
create index workflow_executions_workflow_id_idx
    on workflow_executions (workflow_id, created_at desc, id desc);
create index workflow_executions_project_id_idx on workflow_executions (project_id, created_at desc, id desc);
create index workflow_executions_task_id_idx on workflow_executions (task_id, created_at desc, id desc);
create index workflow_executions_started_by_user_id_idx
    on workflow_executions (started_by_user_id, created_at desc, id desc);
create index workflow_executions_started_by_agent_id_idx
    on workflow_executions (started_by_agent_id, created_at desc, id desc);

create trigger workflow_executions_touch before update on workflow_executions
    for each row execute function touch_row();

comment on table workflow_executions is 'One run of a workflow.';
comment on column workflow_executions.id is 'Identifies the workflow run.';
comment on column workflow_executions.workflow_id is 'The workflow.';
comment on column workflow_executions.project_id is 'The project that the run belongs to.';
comment on column workflow_executions.task_id is 'The task that the run is for.';
comment on column workflow_executions.started_by_user_id is 'The user who started the run.';
comment on column workflow_executions.started_by_agent_id is 'The agent that started the run.';
comment on column workflow_executions.status is
    'How the run stands: pending, running, paused, succeeded, failed or cancelled.';
comment on column workflow_executions.current_step is 'The name of the step that the run has reached.';
comment on column workflow_executions.input is 'What the run was given.';
comment on column workflow_executions.result is 'What the run produced.';
comment on column workflow_executions.error_message is 'Why the run failed.';
comment on column workflow_executions.started_at is 'When the run began.';
comment on column workflow_executions.finished_at is 'When the run ended.';
comment on column workflow_executions.created_at is 'When the workflow run was created.';
comment on column workflow_executions.updated_at is
    'When the workflow run was last changed; the database sets it.';
comment on column workflow_executions.version is
    'Counts the changes of the workflow run from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table checkpoints (
    id uuid primary key default gen_random_uuid(),
    workflow_execution_id uuid not null references workflow_executions (id) on delete cascade,
    position integer not null
        constraint checkpoints_position_check check (position >= 0),
    step text not null
        constraint checkpoints_step_check check (char_length(step) between 1 and 200),
    state jsonb not null default '{}'
        constraint checkpoints_state_check check (jsonb_typeof(state) = 'object'),
    created_at timestamptz not null default now(),
    constraint checkpoints_workflow_execution_id_position_key unique (workflow_execution_id, position)
);

create index checkpoints_workflow_execution_id_idx
    on checkpoints (workflow_execution_id, created_at desc, id desc);

comment on table checkpoints is
    'The saved state of a workflow run after a step, from which the run can go on.';
comment on column checkpoints.id is 'Identifies the checkpoint.';
comment on column checkpoints.workflow_execution_id is 'The run.';
comment on column checkpoints.position is 'The place of the checkpoint in its run, counted from 0.';
comment on column checkpoints.step is 'The name of the step that was finished.';
comment on column checkpoints.state is 'Everything that the run needs to go on from here.';
comment on column checkpoints.created_at is 'When the checkpoint was created.';
