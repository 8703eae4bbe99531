-- Entries of the audit log are never changed and never removed, by nobody, replication included. The one exception
-- is the sealing: the hashes may be set once, and with the hash an entry is closed.

create function refuse_audit_change() returns trigger language plpgsql
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

create trigger audit_logs_immutable before update or delete on audit_logs
    for each row execute function refuse_audit_change();
create trigger audit_logs_no_truncate before truncate on audit_logs
    for each statement execute function refuse_audit_change();
alter table audit_logs enable always trigger audit_logs_immutable;
alter table audit_logs enable always trigger audit_logs_no_truncate;
