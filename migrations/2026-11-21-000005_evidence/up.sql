-- Evidence: what is known, how far it can be trusted, and how pieces of it relate.

-- convert_to() is only STABLE, because it depends on the encoding of the database. That encoding never changes,
-- so this wrapper may promise what a generated column needs. Names are qualified so that a restore, which runs
-- without a search path, computes the same.
create function evidence_content_hash(content text) returns text
    language sql immutable strict parallel safe
    as $$ select pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(content, 'UTF8')), 'hex') $$;
comment on function evidence_content_hash(text) is 'The hex SHA-256 of a text in UTF-8.';

create table evidence (
    id uuid primary key default gen_random_uuid(),
    external_id text unique
        constraint evidence_external_id_check check (char_length(external_id) between 1 and 200),
    project_id uuid not null references projects (id),
    task_id uuid references tasks (id) on delete set null,
    agent_id uuid references agents (id) on delete set null,
    title text not null
        constraint evidence_title_check check (char_length(title) between 1 and 500),
    content text not null
        constraint evidence_content_check check (char_length(content) between 1 and 1000000),
    source_type text not null
        constraint evidence_source_type_check check (source_type in (
            'code_analysis', 'test_result', 'ai_model_output', 'security_advisory',
            'documentation', 'commit', 'pull_request', 'issue', 'log', 'metric',
            'user_feedback', 'web_page', 'research_paper', 'api_response', 'patch',
            'affected_functions', 'dataset', 'other'
        )),
    source_url text
        constraint evidence_source_url_check check (char_length(source_url) between 1 and 2048),
    domain text not null default 'general'
        constraint evidence_domain_check check (domain in ('general', 'financial', 'legal', 'social')),
    credibility_score double precision not null default 0.5
        constraint evidence_credibility_score_check check (credibility_score between 0 and 1),
    verified boolean not null default false,
    verified_by_user_id uuid references users (id) on delete set null,
    verified_at timestamptz,
    verification_note text
        constraint evidence_verification_note_check check (char_length(verification_note) <= 20000),
    content_hash text not null generated always as (evidence_content_hash(content)) stored,
    language text
        constraint evidence_language_check check (char_length(language) between 1 and 35),
    tags text[] not null default '{}'
        constraint evidence_tags_check check (array_position(tags, null) is null and cardinality(tags) <= 100
            and octet_length(array_to_string(tags, '')) <= 2500),
    metadata jsonb not null default '{}'
        constraint evidence_metadata_check check (jsonb_typeof(metadata) = 'object'),
    collected_at timestamptz not null default now(),
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1
);

create index evidence_created_at_idx on evidence (created_at desc, id desc);
create index evidence_project_id_idx on evidence (project_id, created_at desc, id desc);
create index evidence_task_id_idx on evidence (task_id, created_at desc, id desc);
create index evidence_agent_id_idx on evidence (agent_id, created_at desc, id desc);
create index evidence_credibility_score_idx on evidence (credibility_score desc, id desc);
create index evidence_project_id_credibility_score_idx
    on evidence (project_id, credibility_score desc, id desc);
create index evidence_task_id_credibility_score_idx on evidence (task_id, credibility_score desc, id desc);
create index evidence_source_type_idx on evidence (source_type, created_at desc, id desc);
create index evidence_domain_idx on evidence (domain, created_at desc, id desc);
create index evidence_updated_at_idx on evidence (updated_at desc, id desc);
create index evidence_content_hash_idx on evidence (content_hash);
create index evidence_expires_at_idx on evidence (expires_at) where expires_at is not null;
create index evidence_tags_idx on evidence using gin (tags);
create index evidence_metadata_idx on evidence using gin (metadata jsonb_path_ops);
create index evidence_verified_by_user_id_idx on evidence (verified_by_user_id, created_at desc, id desc);

create trigger evidence_touch before update on evidence
    for each row execute function touch_row();

comment on table evidence is
    'A piece of evidence: something that supports or contradicts a claim, with its source and how much it can be trusted.';
comment on column evidence.id is 'Identifies the piece of evidence.';
comment on column evidence.external_id is
    'The name that another system gave to the piece of evidence; unique, so that an import can be repeated.';
comment on column evidence.project_id is 'The project that the evidence belongs to.';
comment on column evidence.task_id is 'The task for which the evidence was collected.';
comment on column evidence.agent_id is 'The agent that collected the evidence.';
comment on column evidence.title is 'The evidence in one line.';
comment on column evidence.content is 'The full text of the evidence, at most one million characters.';
comment on column evidence.source_type is 'What kind of source the evidence comes from.';
comment on column evidence.source_url is 'The address of the source.';
comment on column evidence.domain is
    'The field of knowledge that the evidence belongs to: general, financial, legal or social.';
comment on column evidence.credibility_score is
    'How much the content can be trusted, from 0.0 (not at all) to 1.0 (fully).';
comment on column evidence.verified is 'Whether a person has confirmed the evidence.';
comment on column evidence.verified_by_user_id is 'The user who confirmed or rejected the evidence.';
comment on column evidence.verified_at is 'When the evidence was last confirmed or rejected.';
comment on column evidence.verification_note is 'What the user who checked the evidence wrote about it.';
comment on column evidence.content_hash is
    'The SHA-256 of the content as 64 hexadecimal digits; the database computes it. Equal content has an equal hash.';
comment on column evidence.language is
    'The language of the content as a BCP 47 tag such as "en", or the name of a programming language.';
comment on column evidence.tags is 'Free labels.';
comment on column evidence.metadata is
    'Further facts about the piece of evidence as a JSON object; nothing in it is interpreted.';
comment on column evidence.collected_at is 'When the evidence was collected from its source.';
comment on column evidence.expires_at is 'When the evidence stops being valid.';
comment on column evidence.created_at is 'When the piece of evidence was created.';
comment on column evidence.updated_at is 'When the piece of evidence was last changed; the database sets it.';
comment on column evidence.deleted_at is
    'When the piece of evidence was deleted. Deleted rows are kept but are no longer shown.';
comment on column evidence.version is
    'Counts the changes of the piece of evidence from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table evidence_relations (
    id uuid primary key default gen_random_uuid(),
    from_evidence_id uuid not null references evidence (id) on delete cascade,
    to_evidence_id uuid not null references evidence (id) on delete cascade,
    kind text not null
        constraint evidence_relations_kind_check
            check (kind in ('supports', 'contradicts', 'derives_from', 'duplicates', 'related')),
    strength double precision not null default 1
        constraint evidence_relations_strength_check check (strength between 0 and 1),
    note text
        constraint evidence_relations_note_check check (char_length(note) <= 20000),
    created_by_user_id uuid references users (id) on delete set null,
    created_by_agent_id uuid references agents (id) on delete set null,
    created_at timestamptz not null default now(),
    constraint evidence_relations_from_to_kind_key unique (from_evidence_id, to_evidence_id, kind),
    constraint evidence_relations_self_check check (from_evidence_id <> to_evidence_id)
);

create index evidence_relations_from_evidence_id_idx
    on evidence_relations (from_evidence_id, created_at desc, id desc);
create index evidence_relations_to_evidence_id_idx
    on evidence_relations (to_evidence_id, created_at desc, id desc);
create index evidence_relations_created_by_user_id_idx
    on evidence_relations (created_by_user_id, created_at desc, id desc);
create index evidence_relations_created_by_agent_id_idx
    on evidence_relations (created_by_agent_id, created_at desc, id desc);

comment on table evidence_relations is
    'How one piece of evidence bears on another. A relation is read as "from kind to": from supports to.';
comment on column evidence_relations.id is 'Identifies the relation.';
comment on column evidence_relations.from_evidence_id is
    'The evidence that the relation starts at, for instance the one that supports.';
comment on column evidence_relations.to_evidence_id is
    'The evidence that the relation points to, for instance the one that is supported.';
comment on column evidence_relations.kind is
    'How the first bears on the second: supports, contradicts, derives_from, duplicates or related.';
comment on column evidence_relations.strength is
    'How strong the relation is, from 0.0 (hardly) to 1.0 (fully).';
comment on column evidence_relations.note is 'Why the relation holds.';
comment on column evidence_relations.created_by_user_id is 'The user who stated the relation.';
comment on column evidence_relations.created_by_agent_id is 'The agent that stated the relation.';
comment on column evidence_relations.created_at is 'When the relation was created.';

create table evidence_credibility_history (
    id uuid primary key default gen_random_uuid(),
    evidence_id uuid not null references evidence (id) on delete cascade,
    old_score double precision
        constraint evidence_credibility_history_old_score_check check (old_score between 0 and 1),
    new_score double precision not null
        constraint evidence_credibility_history_new_score_check check (new_score between 0 and 1),
    reason text not null
        constraint evidence_credibility_history_reason_check check (char_length(reason) between 1 and 20000),
    changed_by_user_id uuid references users (id) on delete set null,
    changed_by_agent_id uuid references agents (id) on delete set null,
    created_at timestamptz not null default now()
);

create index evidence_credibility_history_created_at_idx
    on evidence_credibility_history (created_at desc, id desc);
create index evidence_credibility_history_evidence_id_idx
    on evidence_credibility_history (evidence_id, created_at desc, id desc);
create index evidence_credibility_history_changed_by_user_id_idx
    on evidence_credibility_history (changed_by_user_id, created_at desc, id desc);
create index evidence_credibility_history_changed_by_agent_id_idx
    on evidence_credibility_history (changed_by_agent_id, created_at desc, id desc);

comment on table evidence_credibility_history is 'One change of how much a piece of evidence is trusted.';
comment on column evidence_credibility_history.id is 'Identifies the credibility change.';
comment on column evidence_credibility_history.evidence_id is 'The evidence.';
comment on column evidence_credibility_history.old_score is
    'The score before the change, from 0.0 to 1.0; null for the first one.';
comment on column evidence_credibility_history.new_score is
    'The score after the change, from 0.0 (not trusted at all) to 1.0 (fully).';
comment on column evidence_credibility_history.reason is 'Why the score was changed.';
comment on column evidence_credibility_history.changed_by_user_id is 'The user who changed the score.';
comment on column evidence_credibility_history.changed_by_agent_id is 'The agent that changed the score.';
comment on column evidence_credibility_history.created_at is 'When the credibility change was created.';

-- Here and not beside the tasks, because an attachment may be the file of a piece of evidence.
create table task_attachments (
    id uuid primary key default gen_random_uuid(),
    task_id uuid not null references tasks (id) on delete cascade,
    evidence_id uuid references evidence (id) on delete set null,
    uploaded_by_user_id uuid references users (id) on delete set null,
    file_name text not null
        constraint task_attachments_file_name_check check (char_length(file_name) between 1 and 255),
    media_type text not null
        constraint task_attachments_media_type_check check (char_length(media_type) between 1 and 255),
    size_bytes bigint not null
        constraint task_attachments_size_bytes_check check (size_bytes >= 0),
    storage_path text not null
        constraint task_attachments_storage_path_check check (char_length(storage_path) between 1 and 1024),
    sha256 text
        constraint task_attachments_sha256_check check (sha256 ~ '^[0-9a-f]{64}$'),
    created_at timestamptz not null default now(),
    deleted_at timestamptz
);

create index task_attachments_created_at_idx on task_attachments (created_at desc, id desc);
create index task_attachments_task_id_idx on task_attachments (task_id, created_at desc, id desc);
create index task_attachments_evidence_id_idx on task_attachments (evidence_id, created_at desc, id desc);
create index task_attachments_uploaded_by_user_id_idx
    on task_attachments (uploaded_by_user_id, created_at desc, id desc);

comment on table task_attachments is 'A file that belongs to a task.';
comment on column task_attachments.id is 'Identifies the attachment.';
comment on column task_attachments.task_id is 'The task.';
comment on column task_attachments.evidence_id is 'The evidence that the file holds.';
comment on column task_attachments.uploaded_by_user_id is 'The user who uploaded the file.';
comment on column task_attachments.file_name is 'The name of the file.';
comment on column task_attachments.media_type is 'The media type of the file, such as "image/png".';
comment on column task_attachments.size_bytes is 'The size of the file in bytes.';
comment on column task_attachments.storage_path is 'Where the file lies in the file store.';
comment on column task_attachments.sha256 is 'The SHA-256 of the file as 64 hexadecimal digits.';
comment on column task_attachments.created_at is 'When the attachment was created.';
comment on column task_attachments.deleted_at is
    'When the attachment was deleted. Deleted rows are kept but are no longer shown.';
