-- Evidence that the vector index lacks because the embedder does not take its text: a row that fails again and again by
-- itself must not hold up all others, and must not be forgotten either.

create table parked_evidence (
    evidence_id uuid not null references evidence (id) on delete cascade,
    model text not null
        constraint parked_evidence_model_check check (char_length(model) between 1 and 200),
    evidence_version integer not null
        constraint parked_evidence_evidence_version_check check (evidence_version >= 1),
    reason text not null
        constraint parked_evidence_reason_check check (char_length(reason) between 1 and 500),
    attempts integer not null
        constraint parked_evidence_attempts_check check (attempts >= 1),
    parked_at timestamptz not null default now(),
    attempted_at timestamptz not null default now(),
    retry_requested_at timestamptz,
    primary key (evidence_id, model)
);

-- The indexer looks every few seconds.
create index parked_evidence_retry_requested_at_idx on parked_evidence (model, retry_requested_at)
    where retry_requested_at is not null;

comment on table parked_evidence is
    'Evidence that is not in the vector index because the embedder does not take its text, though it takes others.';
comment on column parked_evidence.evidence_id is 'The evidence.';
comment on column parked_evidence.model is 'The model that does not take it.';
comment on column parked_evidence.evidence_version is
    'The version of the evidence that was tried last; a higher one is tried by itself.';
comment on column parked_evidence.reason is 'What the embedder said last, without the text and without secrets.';
comment on column parked_evidence.attempts is 'How often it was tried.';
comment on column parked_evidence.parked_at is 'When it was given up first.';
comment on column parked_evidence.attempted_at is 'When it was tried last.';
comment on column parked_evidence.retry_requested_at is
    'Since when somebody wants it to be tried again; null if nobody does.';
