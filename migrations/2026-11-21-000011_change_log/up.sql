-- The change log: every write to an entity, by whomever, leaves a row here in its own transaction.
-- Readers compare xids with snapshots (see ARCHITECTURE.md, "The change log"): transactions commit out of order, so
-- whoever remembered the highest seq would miss what commits late.

create table change_log (
    xid xid8 not null default pg_current_xact_id(),
    seq bigserial not null,
    entity text not null,
    row_id uuid,
    op text not null,
    project_id uuid,
    old_project_id uuid,
    keys jsonb not null default '{}',
    at timestamptz not null default statement_timestamp(),
    -- What is new is found by xid, and a large set is read by seq. No other index, because every statement pays for
    -- each. And no CHECK: PostgreSQL prepares them anew for every statement (a third of the cost of a row), and only
    -- the triggers below write here.
    primary key (xid, seq)
);

create index change_log_seq_idx on change_log (seq);

comment on table change_log is
    'Every committed change of an entity, written by triggers in the transaction of the change.';
comment on column change_log.xid is 'The transaction that made the change; not that of a savepoint in it.';
comment on column change_log.seq is
    'The order in which the changes were made: those of one transaction, and those of one row by whatever transactions, because who changes a row waits for who changed it before. It says nothing about the order of commits.';
comment on column change_log.entity is 'The table that the row belongs to.';
comment on column change_log.row_id is 'The row; null if the whole table was emptied.';
comment on column change_log.op is 'What was done: insert, update, delete or truncate.';
comment on column change_log.project_id is
    'The project of the row, that of a deleted one before it was deleted; null for rows without a project, and for parts of a row that is gone with them.';
comment on column change_log.old_project_id is 'The project that the row was moved out of; null if it was not moved.';
comment on column change_log.keys is
    'The foreign keys and the short columns that lists are filtered and ordered by, as they are now (before the deletion, for a deleted row); null for a list of texts that is long. An update has the former values of those that it changed under "old", and the names of all columns that it changed, save version and updated_at, under "changed".';
comment on column change_log.at is 'When the statement began that made the change.';

create table change_log_pruned (
    id boolean primary key default true
        constraint change_log_pruned_id_check check (id),
    xid xid8 not null default '0',
    pruned_at timestamptz
);

comment on table change_log_pruned is 'How much of the change log was removed: one row.';
comment on column change_log_pruned.id is 'Always true, so that there is one row at most.';
comment on column change_log_pruned.xid is
    'The last transaction with removed changes. A reader that has not seen this one and all before it has missed something.';
comment on column change_log_pruned.pruned_at is 'When changes were last removed; null if none were yet.';

insert into change_log_pruned default values;

-- How the log is read. A plan for these statements that was made while the log was small, or without statistics,
-- must not become a scan of all of it for each look: so they are functions, with a planner that only has the indexes.

create function change_log_highest(until pg_snapshot) returns xid8
    language plpgsql stable
    set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
    set plan_cache_mode = force_generic_plan
as $$
begin
    return (select c.xid from change_log c
        where c.xid < pg_snapshot_xmax(until) and pg_visible_in_snapshot(c.xid, until)
        order by c.xid desc, c.seq desc limit 1);
end
$$;

comment on function change_log_highest is 'The last transaction with changes that a snapshot sees.';

create function change_log_set(since pg_snapshot, until pg_snapshot, most bigint) returns setof change_log
    language plpgsql stable rows 100
    set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
    set plan_cache_mode = force_generic_plan
as $$
begin
    -- Those that the first snapshot saw running, and those that began later.
    return query
    (select x.* from pg_snapshot_xip(since) u (xid), lateral (
        select c.* from change_log c where c.xid = u.xid order by c.xid, c.seq limit most) x
    where pg_visible_in_snapshot(u.xid, until) limit most)
    union all
    (select c.* from change_log c where c.xid >= pg_snapshot_xmax(since) and c.xid < pg_snapshot_xmax(until)
        and pg_visible_in_snapshot(c.xid, until) order by c.xid, c.seq limit most);
end
$$;

comment on function change_log_set is
    'The changes that one snapshot sees and an earlier one does not, in no order. If there are more, any of them: at least as many as asked for, and at most twice as many.';

create function change_log_span(since pg_snapshot, until pg_snapshot, inout xid xid8, inout seq bigint, most bigint,
        out low bigint, out high bigint)
    language plpgsql stable
    set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
    set plan_cache_mode = force_generic_plan
as $$
declare
    first xid8 := xid;
    after bigint := seq;
begin
    select c.xid, c.seq into xid, seq from change_log c
    where (c.xid, c.seq) > (first, after) and c.xid >= pg_snapshot_xmax(since) and c.xid < pg_snapshot_xmax(until)
    order by c.xid, c.seq offset most - 1 limit 1;
    -- Not by the index on seq, which would begin with the oldest change there is.
    select min(c.seq + 0), max(c.seq + 0) into low, high from change_log c
    where (c.xid, c.seq) > (first, after) and c.xid >= pg_snapshot_xmax(since) and c.xid < pg_snapshot_xmax(until)
        and (c.xid, c.seq) <= (coalesce(change_log_span.xid, pg_snapshot_xmax(until)), coalesce(change_log_span.seq, 0))
        and pg_visible_in_snapshot(c.xid, until);
end
$$;

comment on function change_log_span is
    'Between which seqs a set lies, its transactions that the first snapshot saw running aside. It looks at some changes after a place in the order of xid and says up to where it came; null when that is all.';

create function change_log_page(since pg_snapshot, until pg_snapshot, after bigint, low bigint, high bigint, most bigint)
    returns setof change_log
    language plpgsql stable rows 1000
    set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
    set plan_cache_mode = force_generic_plan
as $$
begin
    return query
    (select x.* from pg_snapshot_xip(since) u (xid), lateral (
        select c.* from change_log c where c.xid = u.xid and c.seq > after order by c.xid, c.seq limit most) x
    where pg_visible_in_snapshot(u.xid, until))
    union all
    (select c.* from change_log c where c.seq > greatest(after, low - 1) and c.seq <= high
        and c.xid >= pg_snapshot_xmax(since) and pg_visible_in_snapshot(c.xid, until) order by c.seq limit most)
    order by seq limit most;
end
$$;

comment on function change_log_page is
    'The next changes of a set in the order of seq, its span being known.';

-- One function per table with static statements: building JSON of whole rows, or SQL at run time, costs several
-- times as much. The owner's rights, so that a program which may write evidence needs no right to this table.
do $do$
declare
    t record;
    body text;
    new_keys text;
    old_keys text;
    former text;
    changed text;
    project text;
begin
    for t in select * from (values
        -- Table, its project as an expression over the row r, the columns in keys: what is short and filtered by.
        ('users', 'null::uuid', '{role,last_seen_at,created_at,version,deleted}'::text[]),
        ('projects', 'r.id', '{owner_id,status,tech_stack,created_at,version,deleted}'),
        ('project_members', 'r.project_id', '{user_id,role,created_at}'),
        ('models', 'null::uuid', '{provider,model_type,created_at,version}'),
        ('model_endpoints', 'null::uuid', '{model_id,endpoint_type,created_at,version}'),
        ('model_capabilities', 'null::uuid', '{model_id,capability,capability_score,created_at,version}'),
        ('agents', 'null::uuid',
            '{model_id,type,status,capabilities,last_heartbeat_at,registered_at,created_at,version,deleted}'),
        ('tasks', 'r.project_id', '{parent_id,created_by_user_id,created_by_agent_id,assigned_user_id,assigned_agent_id,intent,status,priority,category,tags,retry_count,github_issue_number,github_pr_number,due_at,started_at,completed_at,failed_at,created_at,version,deleted}'),
        ('agent_executions', 'r.project_id', '{agent_id,task_id,status,input_tokens,output_tokens,cost_usd,duration_ms,started_at,finished_at,created_at}'),
        ('task_results', '(select p.project_id from %1$I.tasks p where p.id = r.task_id)',
            '{task_id,agent_id,execution_id,result_type,created_at}'),
        ('task_comments', '(select p.project_id from %1$I.tasks p where p.id = r.task_id)',
            '{task_id,author_user_id,author_agent_id,created_at,version,deleted}'),
        ('task_attachments', '(select p.project_id from %1$I.tasks p where p.id = r.task_id)',
            '{task_id,evidence_id,uploaded_by_user_id,media_type,size_bytes,created_at,deleted}'),
        ('evidence', 'r.project_id', '{task_id,agent_id,verified_by_user_id,source_type,domain,language,tags,credibility_score,verified,verified_at,collected_at,expires_at,created_at,version,deleted}'),
        ('evidence_relations', '(select p.project_id from %1$I.evidence p where p.id = r.from_evidence_id)',
            '{from_evidence_id,to_evidence_id,to_project_id,kind,strength,created_by_user_id,created_by_agent_id,created_at}'),
        ('evidence_credibility_history', '(select p.project_id from %1$I.evidence p where p.id = r.evidence_id)',
            '{evidence_id,changed_by_user_id,changed_by_agent_id,old_score,new_score,created_at}'),
        ('evidence_chains', 'r.project_id',
            '{task_id,created_by_user_id,created_by_agent_id,status,confidence,concluded_at,created_at,version,deleted}'),
        ('evidence_chain_links', '(select p.project_id from %1$I.evidence_chains p where p.id = r.chain_id)',
            '{chain_id,evidence_id,evidence_project_id,parent_link_id,position,role,created_at}'),
        ('investigations', 'r.project_id', '{task_id,user_id,agent_id,status,confidence_score,anomalies_found,processing_time_ms,completed_at,created_at,version,deleted}'),
        ('workflows', 'r.project_id', '{created_by_user_id,created_by_agent_id,status,created_at,version,deleted}'),
        ('workflow_executions', 'r.project_id', '{workflow_id,task_id,started_by_user_id,started_by_agent_id,status,current_step,started_at,finished_at,created_at,version}'),
        ('checkpoints', '(select p.project_id from %1$I.workflow_executions p where p.id = r.workflow_execution_id)',
            '{workflow_execution_id,position,created_at}'),
        ('activity_feed', 'r.project_id',
            '{actor_user_id,actor_agent_id,activity_type,visibility,resource_type,resource_id,created_at}')
    ) spec (name, project, columns) loop
        project := format(t.project, current_schema());
        -- Each key with its value, and with what is compared to see whether it was changed.
        select string_agg(format('%L, %s', c, value), ', ' order by n),
            string_agg(format('%L, %s', c, regexp_replace(value, '\mr\.', 'o.', 'g')), ', ' order by n),
            string_agg(format('case when %s then jsonb_build_object(%L, %s) else ''{}'' end',
                replace(different, '<>', 'is distinct from'), c, regexp_replace(value, '\mr\.', 'o.', 'g')),
                E'\n                || ' order by n) filter (where c <> 'version')
        into new_keys, old_keys, former
        from unnest(t.columns) with ordinality u (c, n)
        left join pg_attribute a on a.attrelid = format('%I.%I', current_schema(), t.name)::regclass and a.attname = c
        cross join lateral (select
            case
                -- Whether is what lists ask, not when.
                when c = 'deleted' then '(r.deleted_at is not null)'
                -- For those who may see one end only.
                when c = 'to_project_id' then
                    format('(select p.project_id from %I.evidence p where p.id = r.to_evidence_id)', current_schema())
                when c = 'evidence_project_id' then
                    format('(select p.project_id from %I.evidence p where p.id = r.evidence_id)', current_schema())
                -- The log is no place for long lists: null stands for those.
                when a.attndims > 0 then format('case when pg_column_size(r.%1$I) <= 500 then r.%1$I end', c)
                else format('r.%I', c)
            end,
            case c
                when 'deleted' then '(o.deleted_at is not null) <> (r.deleted_at is not null)'
                when 'to_project_id' then 'o.to_evidence_id <> r.to_evidence_id'
                when 'evidence_project_id' then 'o.evidence_id <> r.evidence_id'
                else format('o.%1$I <> r.%1$I', c)
            end) v (value, different);
        -- Every column but those that every update changes. A text of a megabyte is not compared when its hash is
        -- there. The rest of a row are values that PostgreSQL reads in full for this, if it keeps them elsewhere.
        select string_agg(format('case when o.%1$I is distinct from r.%1$I then %2$L end', a.attname,
            case a.attname when 'content_hash' then 'content' else a.attname end), ', ' order by a.attnum)
        into changed
        from pg_attribute a
        where a.attrelid = format('%I.%I', current_schema(), t.name)::regclass and a.attnum > 0
            and not a.attisdropped and a.attname not in ('id', 'version', 'updated_at')
            and (t.name, a.attname) <> ('evidence', 'content');

        -- The sub-selects of a project are no joins, so that the rows stay in the order of the statement. An update
        -- joins in full, which PostgreSQL does by hashing or merging: a plan that was kept from an update of one row
        -- must not compare each row with each when a thousand come. And an id that changed is a row gone, a row come.
        body := format($body$
begin
    if tg_op = 'INSERT' then
        insert into %1$I.change_log (entity, row_id, op, project_id, keys)
        select %2$L, r.id, 'insert', %3$s, jsonb_build_object(%4$s)
        from new_rows r;
    elsif tg_op = 'UPDATE' then
        insert into %1$I.change_log (entity, row_id, op, project_id, old_project_id, keys)
        select %2$L, coalesce(r.id, o.id),
            case when r.id is null then 'delete' when o.id is null then 'insert' else 'update' end,
            case when r.id is null then %5$s else %3$s end,
            case when r.id is not null then nullif(%5$s, %3$s) end,
            case when r.id is null then jsonb_build_object(%6$s)
            else jsonb_build_object(%4$s) || case when o.id is null then '{}' else jsonb_build_object(
                'changed', array_remove(array[%8$s]::text[], null), 'old', %7$s) end
            end
        from new_rows r full join old_rows o on o.id = r.id;
    elsif tg_op = 'DELETE' then
        insert into %1$I.change_log (entity, row_id, op, project_id, keys)
        select %2$L, o.id, 'delete', %5$s, jsonb_build_object(%6$s)
        from old_rows o;
    else
        insert into %1$I.change_log (entity, op) values (%2$L, 'truncate');
    end if;
    return null;
end
$body$, current_schema(), t.name, project, new_keys, regexp_replace(project, '\mr\.', 'o.', 'g'), old_keys, former,
            changed);
        execute format('create function %I.%I() returns trigger language plpgsql
            security definer set search_path = pg_catalog, pg_temp as %L',
            current_schema(), 'log_' || t.name, body);
        execute format('create trigger %1$I after insert on %2$I.%3$I referencing new table as new_rows
            for each statement execute function %2$I.%4$I()',
            t.name || '_log_insert', current_schema(), t.name, 'log_' || t.name);
        execute format('create trigger %1$I after update on %2$I.%3$I
            referencing old table as old_rows new table as new_rows
            for each statement execute function %2$I.%4$I()',
            t.name || '_log_update', current_schema(), t.name, 'log_' || t.name);
        execute format('create trigger %1$I after delete on %2$I.%3$I referencing old table as old_rows
            for each statement execute function %2$I.%4$I()',
            t.name || '_log_delete', current_schema(), t.name, 'log_' || t.name);
        execute format('create trigger %1$I after truncate on %2$I.%3$I
            for each statement execute function %2$I.%4$I()',
            t.name || '_log_truncate', current_schema(), t.name, 'log_' || t.name);
    end loop;
end
$do$;
