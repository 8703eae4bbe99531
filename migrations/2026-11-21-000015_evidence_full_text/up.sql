-- What searches read while the vector index is away. The expressions stand in the declarations of the entities, too.
create index evidence_full_text_idx on evidence
    using gin (to_tsvector('english'::regconfig, title || ' ' || left(content, 100000)));
create index tasks_full_text_idx on tasks
    using gin (to_tsvector('english'::regconfig, title || ' ' || intent || ' ' || coalesce(category, '')));
