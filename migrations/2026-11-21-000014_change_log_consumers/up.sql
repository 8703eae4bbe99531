-- How far those have come who write down what they read of the change log: saved in the transaction of what they
-- write, so that whoever goes on after a crash repeats nothing and leaves nothing out.

create table change_log_consumers (
    name text primary key
        constraint change_log_consumers_name_check check (char_length(name) between 1 and 100),
    place text not null
        constraint change_log_consumers_place_check check (char_length(place) >= 1),
    saved_at timestamptz not null default now()
);

comment on table change_log_consumers is
    'How much of the change log those have dealt with who write down what they read.';
comment on column change_log_consumers.name is 'Who it is, such as "recorder".';
comment on column change_log_consumers.place is
    'All changes up to this place in the log are dealt with: a snapshot and, within a set of changes, the set''s end and the last change.';
comment on column change_log_consumers.saved_at is 'When it last moved.';

-- The recorder begins here and now: what was written before is not made up afterwards, and what is written from now
-- on is recorded, also before the first gateway starts. Not above this transaction: numbers beyond it may not have
-- reached the disk, and are given out again after a crash.
insert into change_log_consumers (name, place)
select 'recorder', format('%s:%s:%s', coalesce(min(running), ends), ends, string_agg(running::text, ',' order by running))
from (
    select s, least(pg_snapshot_xmax(s)::text::bigint, pg_current_xact_id()::text::bigint + 1) as ends
    from pg_current_snapshot() s
) here
left join lateral (select xid::text::bigint as running from pg_snapshot_xip(s) xid) r on running < ends
group by ends;

comment on column audit_logs.service_name is
    'The service that did it: "external" for another program that wrote to the database, "import" for the command, "recorder" for the gateway''s own reader of the change log.';
