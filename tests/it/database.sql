-- Rules of the tables. Each query lists what breaks its rule; diesel's own table is left out.

-- name: tables without a comment
select c.relname
from pg_class c
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
  and c.relname <> '__diesel_schema_migrations'
  and coalesce(obj_description(c.oid, 'pg_class'), '') = '';

-- name: columns without a comment that is a sentence
select c.relname, a.attname
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
  and c.relname <> '__diesel_schema_migrations'
  and coalesce(col_description(c.oid, a.attnum), '') !~ '^[A-Z].*\.$';

-- name: foreign keys without an index (an index serves if it is valid, not partial, and begins with the key's columns)
select k.conrelid::regclass, k.conname
from pg_constraint k
where k.contype = 'f' and k.connamespace = current_schema()::regnamespace
  and not exists (
    select from pg_index i
    where i.indrelid = k.conrelid and i.indisvalid and i.indpred is null
      and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
      and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] <@ k.conkey
  );

-- name: columns that name a row of another table and have no index that begins with them
select c.relname, a.attname
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
  and c.relname <> '__diesel_schema_migrations' and a.atttypid = 'uuid'::regtype
  and (c.relname, a.attname) not in (('audit_logs', 'resource_id'), ('activity_feed', 'resource_id'))
  -- Read in the order of its key alone, and written with every statement.
  and c.relname <> 'change_log'
  and not exists (
    select from pg_index i
    where i.indrelid = c.oid and i.indisvalid and i.indpred is null and i.indkey[0] = a.attnum
  );

-- name: tables without a primary key
select c.relname
from pg_class c
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
  and c.relname <> '__diesel_schema_migrations'
  and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'p');

-- name: tables with a version that the shared trigger does not keep
select c.relname
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attname = 'version' and not a.attisdropped
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
  and c.relname <> '__diesel_schema_migrations'
  and not exists (
    select from pg_trigger t
    join pg_proc p on p.oid = t.tgfoid
    where t.tgrelid = c.oid and p.proname = 'touch_row' and t.tgenabled = 'O'
      and t.tgtype = 1 | 2 | 16    -- for each row, before, update
      and cardinality(t.tgattr::int2[]) = 0 and t.tgqual is null
  );

-- name: timestamps without a time zone, json instead of jsonb, and enum types
select c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
  and c.relname <> '__diesel_schema_migrations'
  and (a.atttypid in ('timestamp'::regtype, 'json'::regtype) or t.typtype = 'e');

-- name: arrays that could hold null (schema.rs declares their elements as not null)
select c.relname, a.attname
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_type t on t.oid = a.atttypid and t.typcategory = 'A'
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
  and c.relname <> '__diesel_schema_migrations'
  and not exists (
    select from pg_constraint k
    where k.conrelid = c.oid and k.contype = 'c' and k.conkey = array[a.attnum]
      and pg_get_constraintdef(k.oid) like '%array_position(' || a.attname || ', NULL%'
  );

-- name: text columns without a bound (generated ones have it from what they are generated from)
select c.relname, a.attname
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
  and c.relname <> '__diesel_schema_migrations' and a.atttypid = 'text'::regtype and a.attgenerated = ''
  -- Written by the program's own triggers alone, and with every statement: see the migration.
  and c.relname <> 'change_log'
  and not exists (
    select from pg_constraint k where k.conrelid = c.oid and k.contype = 'c' and a.attnum = any (k.conkey)
  );

-- name: indexes that say nothing another one of the same table does not say (same columns, order, method and predicate)
select a.indexrelid::regclass, b.indexrelid::regclass
from pg_index a
join pg_index b on a.indrelid = b.indrelid and a.indexrelid < b.indexrelid
join pg_class c on c.oid = a.indrelid and c.relnamespace = current_schema()::regnamespace
where a.indkey = b.indkey and a.indoption = b.indoption and a.indclass = b.indclass
  and a.indpred::text is not distinct from b.indpred::text;
