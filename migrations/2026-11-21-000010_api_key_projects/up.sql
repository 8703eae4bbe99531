-- A key may be limited to projects. Without the column a key of an agent, which is a member of nothing, saw nothing.
-- The bound is what a token can carry too, so that the two kinds of credentials say the same things.

alter table api_keys add column project_ids uuid[]
    constraint api_keys_project_ids_check
        check (array_position(project_ids, null) is null and cardinality(project_ids) <= 100);

comment on column api_keys.project_ids is
    'The projects that the key may see at most; null for those of its user, and for all of them if it is an administrator''s.';
