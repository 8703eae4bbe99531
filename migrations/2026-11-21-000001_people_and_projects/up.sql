-- People and projects, and the one trigger function that every table with a version shares.
-- Bounded values are text with a named CHECK and no enum type: a value can be added without a lock on every
-- table, and the name of the constraint tells a client which field was wrong. Labels are bounded in number and
-- in bytes, because a GIN index refuses an entry of more than about 2700 bytes with an error that helps no client.

create function touch_row() returns trigger language plpgsql as $$
begin
    -- Whatever the writer sent: a version that a writer could choose would protect nobody.
    new.version := old.version + 1;
    new.updated_at := now();
    return new;
end
$$;
comment on function touch_row() is 'Raises version by one and sets updated_at on every update.';

create table users (
    id uuid primary key default gen_random_uuid(),
    external_id text unique
        constraint users_external_id_check check (char_length(external_id) between 1 and 200),
    username text not null unique
        constraint users_username_check check (char_length(username) between 1 and 100),
    display_name text not null
        constraint users_display_name_check check (char_length(display_name) between 1 and 200),
    email text unique
        constraint users_email_check check (char_length(email) between 1 and 320),
    role text not null default 'viewer'
        constraint users_role_check check (role in ('viewer', 'analyst', 'agent', 'admin')),
    github_login text
        constraint users_github_login_check check (char_length(github_login) between 1 and 100),
    preferences jsonb not null default '{}'
        constraint users_preferences_check check (jsonb_typeof(preferences) = 'object'),
    metadata jsonb not null default '{}'
        constraint users_metadata_check check (jsonb_typeof(metadata) = 'object'),
    last_seen_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1
);

create index users_created_at_idx on users (created_at desc, id desc);

create trigger users_touch before update on users
    for each row execute function touch_row();

comment on table users is 'A person, or a service that acts like one.';
comment on column users.id is 'Identifies the user.';
comment on column users.external_id is
    'The name that another system gave to the user; unique, so that an import can be repeated.';
comment on column users.username is 'The short unique name, as used for signing in and for mentions.';
comment on column users.display_name is 'The name that is shown to people.';
comment on column users.email is 'The unique e-mail address.';
comment on column users.role is
    'What the user may do everywhere: viewer reads, analyst also judges evidence, agent also writes results, admin may do everything.';
comment on column users.github_login is 'The user''s login at GitHub.';
comment on column users.preferences is 'The user''s own settings for user interfaces.';
comment on column users.metadata is
    'Further facts about the user as a JSON object; nothing in it is interpreted.';
comment on column users.last_seen_at is 'When the user last made a request.';
comment on column users.created_at is 'When the user was created.';
comment on column users.updated_at is 'When the user was last changed; the database sets it.';
comment on column users.deleted_at is
    'When the user was deleted. Deleted rows are kept but are no longer shown.';
comment on column users.version is
    'Counts the changes of the user from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table projects (
    id uuid primary key default gen_random_uuid(),
    external_id text unique
        constraint projects_external_id_check check (char_length(external_id) between 1 and 200),
    slug text not null unique
        constraint projects_slug_check check (char_length(slug) between 1 and 100),
    name text not null
        constraint projects_name_check check (char_length(name) between 1 and 200),
    description text
        constraint projects_description_check check (char_length(description) <= 20000),
    status text not null default 'active'
        constraint projects_status_check check (status in ('active', 'paused', 'archived')),
    repository_url text
        constraint projects_repository_url_check check (char_length(repository_url) between 1 and 2048),
    default_branch text
        constraint projects_default_branch_check check (char_length(default_branch) between 1 and 255),
    tech_stack text[] not null default '{}'
        constraint projects_tech_stack_check
            check (array_position(tech_stack, null) is null and cardinality(tech_stack) <= 100
            and octet_length(array_to_string(tech_stack, '')) <= 2500),
    metrics jsonb not null default '{}'
        constraint projects_metrics_check check (jsonb_typeof(metrics) = 'object'),
    metadata jsonb not null default '{}'
        constraint projects_metadata_check check (jsonb_typeof(metadata) = 'object'),
    owner_id uuid references users (id) on delete set null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1
);

create index projects_created_at_idx on projects (created_at desc, id desc);
create index projects_status_idx on projects (status, created_at desc, id desc);
create index projects_tech_stack_idx on projects using gin (tech_stack);
create index projects_owner_id_idx on projects (owner_id, created_at desc, id desc);

create trigger projects_touch before update on projects
    for each row execute function touch_row();

comment on table projects is
    'A software project: the space that tasks, evidence and decisions belong to, and the border of who may see them.';
comment on column projects.id is 'Identifies the project.';
comment on column projects.external_id is
    'The name that another system gave to the project; unique, so that an import can be repeated.';
comment on column projects.slug is 'The short unique name for addresses, such as "moe-router".';
comment on column projects.name is 'The name that is shown to people.';
comment on column projects.description is 'What the project is about.';
comment on column projects.status is 'Whether work goes on: active, paused or archived.';
comment on column projects.repository_url is 'The address of the project''s source repository.';
comment on column projects.default_branch is 'The branch that work is merged into, such as "main".';
comment on column projects.tech_stack is 'The languages, frameworks and services that the project uses.';
comment on column projects.metrics is
    'Measured facts about the project, such as the rate of merged pull requests or the test coverage.';
comment on column projects.metadata is
    'Further facts about the project as a JSON object; nothing in it is interpreted.';
comment on column projects.owner_id is 'The user who answers for the project.';
comment on column projects.created_at is 'When the project was created.';
comment on column projects.updated_at is 'When the project was last changed; the database sets it.';
comment on column projects.deleted_at is
    'When the project was deleted. Deleted rows are kept but are no longer shown.';
comment on column projects.version is
    'Counts the changes of the project from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table project_members (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references projects (id) on delete cascade,
    user_id uuid not null references users (id) on delete cascade,
    role text not null default 'member'
        constraint project_members_role_check check (role in ('owner', 'maintainer', 'member', 'viewer')),
    created_at timestamptz not null default now(),
    constraint project_members_project_id_user_id_key unique (project_id, user_id)
);

create index project_members_project_id_idx on project_members (project_id, created_at desc, id desc);
create index project_members_user_id_idx on project_members (user_id, created_at desc, id desc);

comment on table project_members is 'Who belongs to a project, and in which role.';
comment on column project_members.id is 'Identifies the membership.';
comment on column project_members.project_id is 'The project.';
comment on column project_members.user_id is 'The member.';
comment on column project_members.role is
    'What the member may do in this project: owner, maintainer, member, or viewer (reads only).';
comment on column project_members.created_at is 'When the membership was created.';
