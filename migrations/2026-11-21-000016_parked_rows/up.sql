-- Rows that the vector index lacks because the embedder does not take its text: a row that fails again and again by
-- itself must not hold up all others, and must not be forgotten either.

create table parked_rows (
    row_id uuid not null,
    model text not null
        constraint parked_rows_model_check check (char_length(model) between 1 and 200),
    row_version integer not null
        constraint parked_rows_row_version_check check (row_version >= 1),
    reason text not null
        constraint parked_rows_reason_check check (char_length(reason) between 1 and 500),
    attempts integer not null
        constraint parked_rows_attempts_check check (attempts >= 1),
    parked_at timestamptz not null default now(),
    attempted_at timestamptz not null default now(),
    retry_requested_at timestamptz,
    primary key (row_id, model)
);

-- The indexer looks every few seconds.
create index parked_rows_retry_requested_at_idx on parked_rows (model, retry_requested_at)
    where retry_requested_at is not null;

comment on table parked_rows is
    'Rows that are not in the vector index because the embedder does not take its text, though it takes others.';
comment on column parked_rows.row_id is 'The row: of any entity that is searched.';
comment on column parked_rows.model is 'The model that does not take it.';
comment on column parked_rows.row_version is
    'The version of the row that was tried last; a higher one is tried by itself.';
comment on column parked_rows.reason is 'What the embedder said last, without the text and without secrets.';
comment on column parked_rows.attempts is 'How often it was tried.';
comment on column parked_rows.parked_at is 'When it was given up first.';
comment on column parked_rows.attempted_at is 'When it was tried last.';
comment on column parked_rows.retry_requested_at is
    'Since when somebody wants it to be tried again; null if nobody does.';
