-- Evidence chains: a claim and the evidence that leads to its conclusion. The links of a chain form a forest;
-- the database itself refuses a cycle, whoever writes.

create table evidence_chains (
    id uuid primary key default gen_random_uuid(),
    external_id text unique
        constraint evidence_chains_external_id_check check (char_length(external_id) between 1 and 200),
    project_id uuid not null references projects (id),
    task_id uuid references tasks (id) on delete set null,
    claim text not null
        constraint evidence_chains_claim_check check (char_length(claim) between 1 and 5000),
    conclusion text
        constraint evidence_chains_conclusion_check check (char_length(conclusion) <= 20000),
    status text not null default 'open'
        constraint evidence_chains_status_check check (status in ('open', 'concluded', 'rejected')),
    confidence double precision
        constraint evidence_chains_confidence_check check (confidence between 0 and 1),
    created_by_user_id uuid references users (id) on delete set null,
    created_by_agent_id uuid references agents (id) on delete set null,
    concluded_at timestamptz,
    metadata jsonb not null default '{}'
        constraint evidence_chains_metadata_check check (jsonb_typeof(metadata) = 'object'),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    version integer not null default 1
);

create index evidence_chains_created_at_idx on evidence_chains (created_at desc, id desc);
create index evidence_chains_project_id_idx on evidence_chains (project_id, created_at desc, id desc);
create index evidence_chains_status_idx on evidence_chains (status, created_at desc, id desc);
create index evidence_chains_task_id_idx on evidence_chains (task_id, created_at desc, id desc);
create index evidence_chains_created_by_user_id_idx
    on evidence_chains (created_by_user_id, created_at desc, id desc);
create index evidence_chains_created_by_agent_id_idx
    on evidence_chains (created_by_agent_id, created_at desc, id desc);

create trigger evidence_chains_touch before update on evidence_chains
    for each row execute function touch_row();

comment on table evidence_chains is
    'A claim or decision together with the evidence that it rests on, and its conclusion.';
comment on column evidence_chains.id is 'Identifies the chain.';
comment on column evidence_chains.external_id is
    'The name that another system gave to the chain; unique, so that an import can be repeated.';
comment on column evidence_chains.project_id is 'The project that the chain belongs to.';
comment on column evidence_chains.task_id is 'The task that the claim or decision is about.';
comment on column evidence_chains.claim is 'What is claimed, or what is to be decided.';
comment on column evidence_chains.conclusion is 'What the evidence led to.';
comment on column evidence_chains.status is 'How the claim stands: open, concluded or rejected.';
comment on column evidence_chains.confidence is
    'How sure the conclusion is, from 0.0 (a guess) to 1.0 (certain); null while nobody has judged it.';
comment on column evidence_chains.created_by_user_id is 'The user who opened the chain.';
comment on column evidence_chains.created_by_agent_id is 'The agent that opened the chain.';
comment on column evidence_chains.concluded_at is 'When the claim was concluded or rejected.';
comment on column evidence_chains.metadata is
    'Further facts about the chain as a JSON object; nothing in it is interpreted.';
comment on column evidence_chains.created_at is 'When the chain was created.';
comment on column evidence_chains.updated_at is 'When the chain was last changed; the database sets it.';
comment on column evidence_chains.deleted_at is
    'When the chain was deleted. Deleted rows are kept but are no longer shown.';
comment on column evidence_chains.version is
    'Counts the changes of the chain from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table evidence_chain_links (
    id uuid primary key default gen_random_uuid(),
    chain_id uuid not null references evidence_chains (id) on delete cascade,
    evidence_id uuid not null references evidence (id),
    parent_link_id uuid,
    position integer not null
        constraint evidence_chain_links_position_check check (position >= 0),
    role text not null
        constraint evidence_chain_links_role_check
            check (role in ('premise', 'support', 'contradiction', 'context', 'conclusion')),
    rationale text
        constraint evidence_chain_links_rationale_check check (char_length(rationale) <= 20000),
    created_at timestamptz not null default now(),
    constraint evidence_chain_links_id_chain_id_key unique (id, chain_id),
    constraint evidence_chain_links_chain_id_position_key unique (chain_id, position)
        deferrable initially immediate,
    constraint evidence_chain_links_parent_fkey foreign key (parent_link_id, chain_id)
        references evidence_chain_links (id, chain_id)
);

create index evidence_chain_links_evidence_id_idx
    on evidence_chain_links (evidence_id, created_at desc, id desc);
create index evidence_chain_links_parent_link_id_idx on evidence_chain_links (parent_link_id, chain_id);

comment on table evidence_chain_links is
    'One step of an evidence chain: a piece of evidence, the part that it plays, and the step that it follows from.';
comment on column evidence_chain_links.id is 'Identifies the link.';
comment on column evidence_chain_links.chain_id is 'The chain.';
comment on column evidence_chain_links.evidence_id is 'The evidence of this step.';
comment on column evidence_chain_links.parent_link_id is
    'The step of the same chain that this one follows from; null for a step that starts a line of thought.';
comment on column evidence_chain_links.position is
    'The place of the step in the chain, counted from 0; no two steps of a chain share one.';
comment on column evidence_chain_links.role is
    'The part that the evidence plays: premise, support, contradiction, context or conclusion.';
comment on column evidence_chain_links.rationale is 'Why the evidence belongs here.';
comment on column evidence_chain_links.created_at is 'When the link was created.';

create function refuse_evidence_chain_cycle() returns trigger language plpgsql
    set search_path from current
    as $$
begin
    -- Two transactions may each add one half of a cycle, so changes of one chain take turns at its row.
    -- NO KEY UPDATE and not UPDATE: every insert already holds the KEY SHARE lock of its foreign key, and two of
    -- them would wait for each other. Moving a link really changes the chain's row, because a transaction above
    -- READ COMMITTED cannot see the other half; this way it gets a serialization failure instead.
    if tg_op = 'UPDATE' then
        update evidence_chains set updated_at = now() where id = new.chain_id;
    else
        perform from evidence_chains where id = new.chain_id for no key update;
    end if;
    -- A statement of its own, so that it sees what the lock has waited for. UNION ends the walk at a cycle.
    if exists (
        with recursive ancestors (id) as (
            select parent_link_id from evidence_chain_links where id = new.id
            union
            select link.parent_link_id from ancestors join evidence_chain_links link using (id)
        )
        select from ancestors where id = new.id
    ) then
        raise exception 'a link of an evidence chain may not follow from itself'
            using errcode = 'check_violation', constraint = 'evidence_chain_links_acyclic',
                schema = tg_table_schema, table = tg_table_name, column = 'parent_link_id';
    end if;
    return null;
end
$$;
comment on function refuse_evidence_chain_cycle() is 'Refuses a link that would become its own ancestor.';

create constraint trigger evidence_chain_links_acyclic
    after insert or update of parent_link_id, chain_id on evidence_chain_links
    deferrable initially immediate
    for each row when (new.parent_link_id is not null)
    execute function refuse_evidence_chain_cycle();
