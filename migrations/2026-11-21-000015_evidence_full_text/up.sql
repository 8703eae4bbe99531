-- What searches read while the vector index is away. The expression stands in src/model/search.rs, too.
create index evidence_full_text_idx on evidence
    using gin (to_tsvector('english'::regconfig, title || ' ' || left(content, 100000)));
