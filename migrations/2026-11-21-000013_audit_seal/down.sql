drop function broken_audit_log(bigint, bigint);
drop function seal_audit_logs(integer);
drop function audit_digest(audit_logs);
drop table audit_seals;
drop index audit_logs_xid_idx;
drop index audit_logs_unsealed_idx;
alter table audit_logs drop column seal, drop column xid;

create or replace function refuse_audit_change() returns trigger language plpgsql
    set search_path = pg_catalog, pg_temp
    as $$
begin
    if tg_op = 'UPDATE' and old.hash is null and (old.prev_hash is null or new.prev_hash = old.prev_hash)
        and to_jsonb(new) - '{hash,prev_hash}'::text[] = to_jsonb(old) - '{hash,prev_hash}'::text[]
    then
        return new;
    end if;
    raise exception 'entries of the audit log are immutable'
        using errcode = 'insufficient_privilege', schema = tg_table_schema, table = tg_table_name;
end
$$;
