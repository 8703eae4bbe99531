-- Entries of the audit log are sealed into a chain: each hash covers its entry and the hash before it. The place in
-- the chain is a number of its own, because transactions commit in another order than seq is given out.

alter table audit_logs
    add column xid xid8 not null default pg_current_xact_id(),
    add column seal bigint unique
        constraint audit_logs_seal_check check (seal >= 1);

comment on column audit_logs.xid is 'The transaction that wrote the entry, and did what it tells of.';
comment on column audit_logs.seal is 'The place of the entry in the chain, from 1 without a gap; null until it is sealed.';

-- The sealer looks for what is not sealed yet; whoever follows a transaction looks for its entries.
create index audit_logs_unsealed_idx on audit_logs (seq) where hash is null;
create index audit_logs_xid_idx on audit_logs (xid, resource_id);

create table audit_seals (
    seal bigint primary key
        constraint audit_seals_seal_check check (seal >= 1),
    hash text not null
        constraint audit_seals_hash_check check (hash ~ '^[0-9a-f]{64}$'),
    sealed_at timestamptz not null default now()
);

comment on table audit_seals is
    'The end of the chain after each batch that was sealed: entries that are taken off the end are missed here.';
comment on column audit_seals.seal is 'The place of the last entry of the batch.';
comment on column audit_seals.hash is 'The hash of that entry.';
comment on column audit_seals.sealed_at is 'When the batch was sealed.';

create trigger audit_seals_immutable before update or delete on audit_seals
    for each row execute function refuse_audit_change();
create trigger audit_seals_no_truncate before truncate on audit_seals
    for each statement execute function refuse_audit_change();
alter table audit_seals enable always trigger audit_seals_immutable;
alter table audit_seals enable always trigger audit_seals_no_truncate;

create or replace function refuse_audit_change() returns trigger language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    if tg_op = 'UPDATE' and tg_table_name = 'audit_logs' then
        -- Once, and all three together.
        if old.hash is null and new.hash is not null
            and to_jsonb(new) - '{hash,prev_hash,seal}'::text[] = to_jsonb(old) - '{hash,prev_hash,seal}'::text[]
        then
            return new;
        end if;
    end if;
    raise exception 'entries of the audit log are immutable'
        using errcode = 'insufficient_privilege', schema = tg_table_schema, table = tg_table_name;
end
$$;

-- What the hash of an entry covers: every column but the hash itself, prev_hash included. Members that are null are
-- left out, so that a column which is added later does not break the chain. Times are written in UTC.
create function audit_digest(entry audit_logs) returns text language sql stable
    set timezone = 'UTC'
    as $$
    select encode(sha256(convert_to(jsonb_object_agg(key, value)::text, 'UTF8')), 'hex')
    from jsonb_each(to_jsonb(entry) - 'hash') where value <> 'null'
$$;

comment on function audit_digest(audit_logs) is 'The hash that an entry of the audit log must have.';

-- Seals at most so many entries and says how many it did. One session seals at a time; another finds nothing to do.
create function seal_audit_logs(most integer) returns integer language plpgsql as $$
declare
    entry audit_logs;
    head record;
    done integer := 0;
begin
    if not pg_try_advisory_xact_lock(hashtext('evidence-gateway'), hashtext('seal audit_logs')) then
        return 0;
    end if;
    select seal, hash into head from audit_logs where seal is not null order by seal desc limit 1;
    for entry in select * from audit_logs where hash is null order by seq limit most loop
        entry.seal := coalesce(head.seal, 0) + 1;
        entry.prev_hash := head.hash;
        entry.hash := audit_digest(entry);
        update audit_logs set seal = entry.seal, prev_hash = entry.prev_hash, hash = entry.hash where id = entry.id;
        select entry.seal as seal, entry.hash as hash into head;
        done := done + 1;
    end loop;
    if done > 0 then
        insert into audit_seals (seal, hash) values (head.seal, head.hash);
    end if;
    return done;
end
$$;

comment on function seal_audit_logs(integer) is 'Seals entries of the audit log into the chain.';

-- The first entry between two places that is not as it was sealed, and why; no row if all are.
create function broken_audit_log(first bigint, last bigint)
    returns table (seal bigint, id uuid, reason text) language sql stable as $$
    with entries as (
        select a.seal, a.id, a.hash, a.prev_hash, audit_digest(a) as digest,
            lag(a.hash) over places as hash_before, lag(a.seal) over places as seal_before
        from audit_logs a where a.seal between first - 1 and last
        window places as (order by a.seal)
    ), range as (
        -- The chain goes as far as it was sealed, also where entries were taken off its end.
        select greatest(first, 1) as first, least(last, (select max(s.seal) from audit_seals s)) as last
    ), found as (
        select e.seal, e.id, 'changed' as reason from entries e where e.seal >= first and e.hash is distinct from e.digest
        union all
        select e.seal, e.id, 'moved' from entries e
        where e.seal > greatest(first, 1) - 1 and e.seal_before = e.seal - 1 and e.prev_hash is distinct from e.hash_before
        union all
        select coalesce(e.seal_before, r.first - 1) + 1, null, 'missing' from entries e, range r
        where e.seal > coalesce(e.seal_before, r.first - 1) + 1
        union all
        select coalesce(max(e.seal), r.first - 1) + 1, null, 'missing' from range r left join entries e on true
        group by r.first, r.last having coalesce(max(e.seal), r.first - 1) < r.last
        union all
        -- What was sealed anew from an entry on.
        select s.seal, a.id, 'changed' from audit_seals s join audit_logs a on a.seal = s.seal
        where s.seal between first and last and a.hash is distinct from s.hash
    )
    select f.seal, f.id, f.reason from found f order by f.seal, f.reason limit 1
$$;

comment on function broken_audit_log(bigint, bigint) is
    'Names the first entry of the audit log that was changed, moved or removed since it was sealed.';
