-- Tasks, the executions of agents on them, and what is said about them. Attachments follow with the evidence.

create table tasks (
    id uuid primary key default gen_random_uuid(),
    external_id text unique
        constraint tasks_external_id_check check (char_length(external_id) between 1 and 200),
    project_id uuid not null references projects (id),
    parent_id uuid references tasks (id),
    title text not null
        constraint tasks_title_check check (char_length(title) between 1 and 500),
    intent text not null
        constraint tasks_intent_check check (char_length(intent) between 1 and 100),
    status text not null default 'pending'
        constraint tasks_status_check
            check (status in ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    priority integer not null default 3
        constraint tasks_priority_check check (priority between 1 and 5),
    category text
        constraint tasks_category_check check (char_length(category) between 1 and 100),
    content jsonb not null default '{}'
        constraint tasks_content_check check (jsonb_typeof(content) = 'object'),
    tags text[] not null default '{}'
        constraint tasks_tags_check check (array_position(tags, null) is null and cardinality(tags) <= 100
            and octet_length(array_to_string(tags, '')) <= 2500),
    metadata jsonb not null default '{}'
        constraint tasks_metadata_check check (jsonb_typeof(metadata) = 'object'),
    created_by_user_id uuid references users (id) on delete set null,
    created_by_agent_id uuid references agents (id) on delete set null,
    assigned_user_id uuid references users (id) on delete set null,
    assigned_agent_id uuid references agents (id) on delete set null,
    retry_count integer not null default 0
        constraint tasks_retry_count_check check (retry_count >= 0),
    max_retries integer not null default 3
        constraint tasks_max_retries_check check (max_retries between 0 and 100),
    timeout_seconds integer not null default 300
        constraint tasks_timeout_seconds_check check (timeout_seconds between 1 and 604800),
    error_message text
        constraint tasks_error_message_check check (char_length(error_message) <= 20000),
    github_issue_number integer
        constraint tasks_github_issue_number_check check (github_issue_number >= 1),
    github_pr_number integer
        constraint tasks_github_pr_number_check check (github_pr_number >= 1),
    github_url text
        constraint tasks_github_url_check check (char_length(github_url) between 1 and 2048),
    due_at timestamptz,
    started_at timestamptz,
    completed_at timestamptz,
    failed_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1,
    constraint tasks_parent_check check (parent_id <> id),
    constraint tasks_assignee_check check (num_nonnulls(assigned_user_id, assigned_agent_id) <= 1)
);

create index tasks_created_at_idx on tasks (created_at desc, id desc);
create index tasks_project_id_idx on tasks (project_id, created_at desc, id desc);
create index tasks_status_idx on tasks (status, created_at desc, id desc);
create index tasks_project_id_status_idx on tasks (project_id, status, created_at desc, id desc);
create index tasks_priority_idx on tasks (priority desc, created_at desc, id desc);
create index tasks_updated_at_idx on tasks (updated_at desc, id desc);
create index tasks_due_at_idx on tasks (due_at, id) where due_at is not null;
create index tasks_tags_idx on tasks using gin (tags);
create index tasks_metadata_idx on tasks using gin (metadata jsonb_path_ops);
create index tasks_parent_id_idx on tasks (parent_id, created_at desc, id desc);
create index tasks_created_by_user_id_idx on tasks (created_by_user_id, created_at desc, id desc);
create index tasks_created_by_agent_id_idx on tasks (created_by_agent_id, created_at desc, id desc);
create index tasks_assigned_user_id_idx on tasks (assigned_user_id, created_at desc, id desc);
create index tasks_assigned_agent_id_idx on tasks (assigned_agent_id, created_at desc, id desc);

create trigger tasks_touch before update on tasks
    for each row execute function touch_row();

comment on table tasks is 'A piece of work for a user or an agent: an issue, a review, an analysis.';
comment on column tasks.id is 'Identifies the task.';
comment on column tasks.external_id is
    'The name that another system gave to the task; unique, so that an import can be repeated.';
comment on column tasks.project_id is 'The project that the task belongs to.';
comment on column tasks.parent_id is 'The task that this one is a part of.';
comment on column tasks.title is 'The task in one line.';
comment on column tasks.intent is
    'What is wanted, as a short name that agents are chosen by, such as "code_review".';
comment on column tasks.status is 'How far the task is: pending, processing, completed, failed or cancelled.';
comment on column tasks.priority is 'How urgent the task is, from 1 (lowest) to 5 (highest).';
comment on column tasks.category is 'A free grouping, such as "bug" or "feature".';
comment on column tasks.content is 'The details that the worker needs, as a JSON object.';
comment on column tasks.tags is 'Free labels.';
comment on column tasks.metadata is
    'Further facts about the task as a JSON object; nothing in it is interpreted.';
comment on column tasks.created_by_user_id is 'The user who created the task.';
comment on column tasks.created_by_agent_id is 'The agent that created the task.';
comment on column tasks.assigned_user_id is
    'The user who is to do the task; a task never has an assigned agent as well.';
comment on column tasks.assigned_agent_id is
    'The agent that is to do the task; a task never has an assigned user as well.';
comment on column tasks.retry_count is 'How often the task was tried again.';
comment on column tasks.max_retries is 'How often the task may be tried again, at most 100.';
comment on column tasks.timeout_seconds is 'How long one try may take, in seconds, at most one week.';
comment on column tasks.error_message is 'Why the last try failed.';
comment on column tasks.github_issue_number is 'The number of the issue at GitHub.';
comment on column tasks.github_pr_number is 'The number of the pull request at GitHub.';
comment on column tasks.github_url is 'The address of the issue or pull request at GitHub.';
comment on column tasks.due_at is 'When the task should be done.';
comment on column tasks.started_at is 'When the work began.';
comment on column tasks.completed_at is 'When the task was completed.';
comment on column tasks.failed_at is 'When the task failed for good.';
comment on column tasks.created_at is 'When the task was created.';
comment on column tasks.updated_at is 'When the task was last changed; the database sets it.';
comment on column tasks.deleted_at is
    'When the task was deleted. Deleted rows are kept but are no longer shown.';
comment on column tasks.version is
    'Counts the changes of the task from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table agent_executions (
    id uuid primary key default gen_random_uuid(),
    agent_id uuid not null references agents (id),
    task_id uuid references tasks (id) on delete set null,
    project_id uuid not null references projects (id),
    status text not null default 'running'
        constraint agent_executions_status_check
            check (status in ('running', 'succeeded', 'failed', 'cancelled')),
    input jsonb not null default '{}'
        constraint agent_executions_input_check check (jsonb_typeof(input) = 'object'),
    result jsonb,
    error_message text
        constraint agent_executions_error_message_check check (char_length(error_message) <= 20000),
    input_tokens integer
        constraint agent_executions_input_tokens_check check (input_tokens >= 0),
    output_tokens integer
        constraint agent_executions_output_tokens_check check (output_tokens >= 0),
    cost_usd double precision
        constraint agent_executions_cost_usd_check check (cost_usd >= 0 and cost_usd < 'Infinity'),
    duration_ms integer
        constraint agent_executions_duration_ms_check check (duration_ms >= 0),
    started_at timestamptz not null default now(),
    finished_at timestamptz,
    created_at timestamptz not null default now(),
    constraint agent_executions_times_check check (finished_at >= started_at)
);

create index agent_executions_created_at_idx on agent_executions (created_at desc, id desc);
create index agent_executions_status_idx on agent_executions (status, created_at desc, id desc);
create index agent_executions_agent_id_idx on agent_executions (agent_id, created_at desc, id desc);
create index agent_executions_task_id_idx on agent_executions (task_id, created_at desc, id desc);
create index agent_executions_project_id_idx on agent_executions (project_id, created_at desc, id desc);

comment on table agent_executions is 'One run of an agent: what it was given, what came out, what it cost.';
comment on column agent_executions.id is 'Identifies the execution.';
comment on column agent_executions.agent_id is 'The agent that ran.';
comment on column agent_executions.task_id is 'The task that the run was for.';
comment on column agent_executions.project_id is 'The project that the run belongs to.';
comment on column agent_executions.status is 'How the run stands: running, succeeded, failed or cancelled.';
comment on column agent_executions.input is 'What the agent was given.';
comment on column agent_executions.result is 'What the agent returned.';
comment on column agent_executions.error_message is 'Why the run failed.';
comment on column agent_executions.input_tokens is 'The number of tokens that the model read.';
comment on column agent_executions.output_tokens is 'The number of tokens that the model wrote.';
comment on column agent_executions.cost_usd is 'What the run cost, in US dollars.';
comment on column agent_executions.duration_ms is 'How long the run took, in milliseconds.';
comment on column agent_executions.started_at is 'When the run began.';
comment on column agent_executions.finished_at is 'When the run ended.';
comment on column agent_executions.created_at is 'When the execution was created.';

create table task_results (
    id uuid primary key default gen_random_uuid(),
    task_id uuid not null references tasks (id) on delete cascade,
    agent_id uuid references agents (id) on delete set null,
    execution_id uuid references agent_executions (id) on delete set null,
    result_type text not null
        constraint task_results_result_type_check check (char_length(result_type) between 1 and 100),
    content jsonb not null not null,
    metadata jsonb not null default '{}'
        constraint task_results_metadata_check check (jsonb_typeof(metadata) = 'object'),
    created_at timestamptz not null default now()
);

create index task_results_created_at_idx on task_results (created_at desc, id desc);
create index task_results_task_id_idx on task_results (task_id, created_at desc, id desc);
create index task_results_agent_id_idx on task_results (agent_id, created_at desc, id desc);
create index task_results_execution_id_idx on task_results (execution_id, created_at desc, id desc);

comment on table task_results is 'Something that a task produced.';
comment on column task_results.id is 'Identifies the result.';
comment on column task_results.task_id is 'The task.';
comment on column task_results.agent_id is 'The agent that produced the result.';
comment on column task_results.execution_id is 'The run that produced the result.';
comment on column task_results.result_type is 'The kind of result, such as "summary" or "patch".';
comment on column task_results.content is 'The result itself, any JSON value.';
comment on column task_results.metadata is
    'Further facts about the result as a JSON object; nothing in it is interpreted.';
comment on column task_results.created_at is 'When the result was created.';

create table task_comments (
    id uuid primary key default gen_random_uuid(),
    task_id uuid not null references tasks (id) on delete cascade,
    author_user_id uuid references users (id) on delete set null,
    author_agent_id uuid references agents (id) on delete set null,
    body text not null
        constraint task_comments_body_check check (char_length(body) between 1 and 65536),
    github_comment_id bigint
        constraint task_comments_github_comment_id_check check (github_comment_id >= 1),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1,
    constraint task_comments_author_check check (num_nonnulls(author_user_id, author_agent_id) <= 1)
);

create index task_comments_created_at_idx on task_comments (created_at desc, id desc);
create index task_comments_task_id_idx on task_comments (task_id, created_at desc, id desc);
create index task_comments_author_user_id_idx on task_comments (author_user_id, created_at desc, id desc);
create index task_comments_author_agent_id_idx on task_comments (author_agent_id, created_at desc, id desc);

create trigger task_comments_touch before update on task_comments
    for each row execute function touch_row();

comment on table task_comments is 'A remark on a task, by a user or by an agent.';
comment on column task_comments.id is 'Identifies the comment.';
comment on column task_comments.task_id is 'The task.';
comment on column task_comments.author_user_id is 'The user who wrote the comment.';
comment on column task_comments.author_agent_id is 'The agent that wrote the comment; then no user did.';
comment on column task_comments.body is 'The text, in Markdown.';
comment on column task_comments.github_comment_id is 'The number of the comment at GitHub.';
comment on column task_comments.created_at is 'When the comment was created.';
comment on column task_comments.updated_at is 'When the comment was last changed; the database sets it.';
comment on column task_comments.deleted_at is
    'When the comment was deleted. Deleted rows are kept but are no longer shown.';
comment on column task_comments.version is
    'Counts the changes of the comment from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';
