-- What the gateway itself needs: messages done, keys, stored queries, imports under way.

create table processed_messages (
    message_id text primary key
        constraint processed_messages_message_id_check check (char_length(message_id) between 1 and 512),
    body_hash text not null
        constraint processed_messages_body_hash_check check (body_hash ~ '^[0-9a-f]{64}$'),
    response jsonb,
    processed_at timestamptz not null default now(),
    expires_at timestamptz not null default (now() + interval '48 hours')
);

create index processed_messages_expires_at_idx on processed_messages (expires_at);

comment on table processed_messages is
    'The messages that were already handled, so that a repeated one is answered and not done again.';
comment on column processed_messages.message_id is
    'The idempotency key of the message, with the scope that it is unique in.';
comment on column processed_messages.body_hash is
    'The SHA-256 of the message''s body as 64 hexadecimal digits: the same key with another body is a conflict.';
comment on column processed_messages.response is
    'The answer that was given; null while the message is being handled.';
comment on column processed_messages.processed_at is 'When the message was handled.';
comment on column processed_messages.expires_at is
    'When the message may be forgotten: 48 hours after it was handled, unless said otherwise.';

create table api_keys (
    id uuid primary key default gen_random_uuid(),
    user_id uuid references users (id) on delete cascade,
    agent_id uuid references agents (id) on delete cascade,
    name text not null
        constraint api_keys_name_check check (char_length(name) between 1 and 200),
    prefix text not null
        constraint api_keys_prefix_check check (char_length(prefix) between 1 and 32),
    key_hash text not null unique
        constraint api_keys_key_hash_check check (key_hash ~ '^[0-9a-f]{64}$'),
    role text not null default 'viewer'
        constraint api_keys_role_check check (role in ('viewer', 'analyst', 'agent', 'admin')),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz not null default now(),
    constraint api_keys_holder_check check (num_nonnulls(user_id, agent_id) <= 1)
);

create index api_keys_user_id_idx on api_keys (user_id, created_at desc, id desc);
create index api_keys_agent_id_idx on api_keys (agent_id, created_at desc, id desc);

comment on table api_keys is 'A key with which a program signs in. The key itself is not stored.';
comment on column api_keys.id is 'Identifies the key.';
comment on column api_keys.user_id is 'The user that the key speaks for.';
comment on column api_keys.agent_id is 'The agent that the key speaks for; then it speaks for no user.';
comment on column api_keys.name is 'What the key is for.';
comment on column api_keys.prefix is 'The first characters of the key, by which people can tell keys apart.';
comment on column api_keys.key_hash is 'The SHA-256 of the key as 64 hexadecimal digits.';
comment on column api_keys.role is 'What the key may do at most: viewer, analyst, agent or admin.';
comment on column api_keys.expires_at is 'When the key stops working.';
comment on column api_keys.revoked_at is 'When the key was withdrawn.';
comment on column api_keys.last_used_at is 'When the key was last used.';
comment on column api_keys.created_at is 'When the key was created.';

create table persisted_documents (
    hash text primary key
        constraint persisted_documents_hash_check check (hash ~ '^[0-9a-f]{64}$'),
    document text not null
        constraint persisted_documents_document_check check (char_length(document) between 1 and 1000000),
    operation_name text
        constraint persisted_documents_operation_name_check
            check (char_length(operation_name) between 1 and 200),
    trusted boolean not null default false,
    created_at timestamptz not null default now(),
    last_used_at timestamptz
);

create index persisted_documents_last_used_at_idx on persisted_documents (last_used_at);

comment on table persisted_documents is 'A GraphQL document that clients may run by its hash alone.';
comment on column persisted_documents.hash is 'The SHA-256 of the document as 64 hexadecimal digits.';
comment on column persisted_documents.document is 'The GraphQL document.';
comment on column persisted_documents.operation_name is 'The operation of the document that is run.';
comment on column persisted_documents.trusted is
    'Whether an operator registered the document, rather than a client.';
comment on column persisted_documents.created_at is 'When the document was created.';
comment on column persisted_documents.last_used_at is 'When the document was last run.';

create table import_progress (
    source_sha256 text primary key
        constraint import_progress_source_sha256_check check (source_sha256 ~ '^[0-9a-f]{64}$'),
    source_name text not null
        constraint import_progress_source_name_check check (char_length(source_name) between 1 and 1024),
    lines_done bigint not null default 0
        constraint import_progress_lines_done_check check (lines_done >= 0),
    started_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    finished_at timestamptz
);

comment on table import_progress is
    'How far the import of a file has come, so that it can go on where it stopped.';
comment on column import_progress.source_sha256 is 'The SHA-256 of the file as 64 hexadecimal digits.';
comment on column import_progress.source_name is 'The name of the file, for people.';
comment on column import_progress.lines_done is 'The number of lines that have been imported.';
comment on column import_progress.started_at is 'When the import began.';
comment on column import_progress.updated_at is 'When the import last advanced.';
comment on column import_progress.finished_at is
    'When the import was complete; null while lines are missing.';
