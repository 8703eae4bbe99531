-- What the sample has none of: files, runs, changes of trust, subtasks, chains with branches, walks in circles,
-- deleted rows, parts of a second, texts beyond ASCII. All of it is old, so that it stands on no first page.
begin;

insert into users (id, username, display_name, role, metadata, created_at, deleted_at) values
    ('00000000-0000-4000-8000-000000000001', 'reference-gone', 'Gone', 'viewer', '{}', '2001-01-01', '2001-02-01'),
    ('00000000-0000-4000-8000-000000000002', 'reference-zoë', 'Zoë "Z" \ Ünal', 'analyst',
        '{"deep": [{"a": [1, 2.5, null]}, true], "n": -0.25}', '2001-01-02 03:04:05.678+00', null)
on conflict do nothing;

insert into tasks (id, project_id, parent_id, title, intent, status, priority, category, content, tags, metadata,
    assigned_user_id, created_by_user_id, retry_count, error_message, github_issue_number, due_at, created_at,
    deleted_at)
select md5('reference task ' || n)::uuid,
    (select id from projects order by id offset n % 5 limit 1),
    case when n % 4 > 0 then md5('reference task ' || n - n % 4)::uuid end,
    case n % 3 when 0 then 'Percent 100% _under_ \back ' || n when 1 then 'Größe — 测试 🦀 ' || n else 'plain' end,
    'reference', case n % 3 when 0 then 'pending' when 1 then 'failed' else 'cancelled' end, 1 + n % 5,
    case when n % 2 = 0 then 'reference' end,
    jsonb_build_object('n', n, 'list', jsonb_build_array(n, 'text', jsonb_build_object('odd', n % 2 = 1))),
    case when n % 3 = 0 then array['reference', 'tag-' || n] else '{}' end,
    case when n % 2 = 0 then '{"a": {"b": [1, 2]}, "x": null}' else '{}' end::jsonb,
    case when n % 5 = 0 then '00000000-0000-4000-8000-000000000001'::uuid
        when n % 5 = 1 then '00000000-0000-4000-8000-000000000002' end,
    '00000000-0000-4000-8000-000000000002', n % 4, case when n % 6 = 0 then '' end,
    case when n % 2 = 1 then n end,
    case when n % 3 = 0 then timestamptz '2001-06-01 00:00:00.5+00' + n * interval '1 hour 1 microsecond' end,
    timestamptz '2001-01-01 00:00:00+00' + (n / 2) * interval '7 hours 0.0005 seconds',
    case when n in (8, 11) then now() end
from generate_series(0, 23) n
on conflict do nothing;

insert into agent_executions (id, agent_id, task_id, project_id, status, input, result, input_tokens, cost_usd,
    duration_ms, started_at, finished_at, created_at)
select md5('reference execution ' || n)::uuid, (select id from agents order by id offset n % 7 limit 1),
    case when n % 4 > 0 then md5('reference task ' || n % 24)::uuid end,
    (select id from projects order by id offset n % 5 limit 1),
    (array['running', 'succeeded', 'failed', 'cancelled'])[1 + n % 4], jsonb_build_object('n', n),
    case n % 3 when 0 then '["a", {"b": 1}]' when 1 then '{"ok": true}' end::jsonb, case when n % 2 = 0 then n * 1000 end,
    case when n % 3 > 0 then n / 7.0 end, case when n % 5 > 0 then n * 31 end,
    timestamptz '2001-03-01 12:00:00+00' + n * interval '1 day', null,
    timestamptz '2001-03-01 12:00:00+00' + (n / 3) * interval '1 day 0.25 seconds'
from generate_series(0, 39) n
on conflict do nothing;

insert into evidence (id, project_id, task_id, agent_id, title, content, source_type, domain, credibility_score,
    verified, verified_by_user_id, language, tags, collected_at, created_at, deleted_at)
select md5('reference evidence ' || n)::uuid, (select id from projects order by id offset n % 5 limit 1),
    case when n % 3 > 0 then md5('reference task ' || n % 24)::uuid end,
    case when n % 2 = 0 then (select id from agents order by id offset n % 7 limit 1) end,
    'Evidence ' || n, E'first line\n\t"quoted" \u2028 ' || n,
    (array['log', 'metric', 'code_analysis', 'other', 'test_result'])[1 + n % 5],
    (array['general', 'legal', 'social'])[1 + n % 3], (n % 10) / 10.0, n % 4 = 0,
    case when n % 4 = 0 then '00000000-0000-4000-8000-000000000002'::uuid end,
    case when n % 3 = 0 then 'en' when n % 3 = 1 then 'de' end,
    case when n % 2 = 0 then array['reference', 'Ünïcode'] else '{}' end,
    timestamptz '2001-04-01 23:59:59.999999+00' + n * interval '6 hours', timestamptz '2001-04-01 00:00:00+00',
    case when n = 29 then now() end
from generate_series(0, 29) n
on conflict do nothing;

-- Two rings that share a piece, with ways across.
insert into evidence_relations (id, from_evidence_id, to_evidence_id, kind, strength, note, created_by_user_id, created_at)
select md5('reference relation ' || n || ' ' || step)::uuid, md5('reference evidence ' || n)::uuid,
    md5('reference evidence ' || (n + step) % 20)::uuid,
    (array['supports', 'contradicts', 'derives_from', 'duplicates', 'related'])[1 + (n * step) % 5], n / 20.0,
    case when n % 2 = 0 then 'note ' || n end,
    case when n % 3 = 0 then '00000000-0000-4000-8000-000000000001'::uuid end,
    timestamptz '2001-05-01 00:00:00+00' + (n / 4) * interval '1 minute'
from generate_series(0, 19) n, (values (1), (3), (8)) steps (step)
on conflict do nothing;

insert into evidence_credibility_history (id, evidence_id, old_score, new_score, reason, changed_by_user_id, created_at)
select md5('reference change ' || n)::uuid, md5('reference evidence ' || n % 13)::uuid,
    case when n > 12 then 0.1 end, (n % 11) / 11.0, 'reason ' || n,
    case when n % 2 = 0 then '00000000-0000-4000-8000-000000000002'::uuid end,
    timestamptz '2001-05-02 00:00:00+00' + (n / 5) * interval '1 second'
from generate_series(0, 39) n
on conflict do nothing;

insert into evidence_chains (id, project_id, task_id, claim, conclusion, status, confidence, created_by_user_id,
    created_at, deleted_at)
select md5('reference chain ' || n)::uuid, (select id from projects order by id offset n % 5 limit 1),
    case when n % 2 = 0 then md5('reference task ' || n)::uuid end, 'Claim ' || n, case when n % 3 = 0 then 'So be it' end,
    (array['open', 'concluded', 'rejected'])[1 + n % 3], case when n % 2 = 1 then n / 8.0 end,
    '00000000-0000-4000-8000-000000000001', timestamptz '2001-06-01 00:00:00+00', case when n = 7 then now() end
from generate_series(0, 7) n
on conflict do nothing;

-- Chain 0 has no links; the others have two roots each, on which a tree or a single line rests.
insert into evidence_chain_links (id, chain_id, evidence_id, parent_link_id, position, role, rationale, created_at)
select md5('reference link ' || chain || ' ' || l)::uuid, md5('reference chain ' || chain)::uuid,
    md5('reference evidence ' || (chain * 3 + l) % 20)::uuid,
    case when l > 1 then md5('reference link ' || chain || ' ' || case when chain % 2 = 0 then l - 1 else (l - 1) / 2 end)::uuid end,
    10 - l, (array['premise', 'support', 'contradiction', 'context', 'conclusion'])[1 + l % 5],
    case when l % 2 = 0 then 'because' end, timestamptz '2001-06-02 00:00:00+00' + (l / 3) * interval '1 hour'
from generate_series(1, 6) chain, generate_series(0, 6) l
on conflict (id) do nothing;

insert into task_attachments (id, task_id, evidence_id, uploaded_by_user_id, file_name, media_type, size_bytes,
    storage_path, created_at, deleted_at)
select md5('reference attachment ' || n)::uuid, md5('reference task ' || n % 6)::uuid,
    case when n % 2 = 0 then md5('reference evidence ' || n)::uuid end, '00000000-0000-4000-8000-000000000002',
    'file ' || n, (array['text/plain', 'image/png'])[1 + n % 2], 9007199254740990 + n, 'nowhere', timestamptz '2001-07-01', null
from generate_series(0, 17) n
on conflict do nothing;

insert into task_comments (id, task_id, author_user_id, body, github_comment_id, created_at, deleted_at)
select md5('reference comment ' || n)::uuid, md5('reference task ' || n % 4)::uuid,
    case n % 3 when 0 then '00000000-0000-4000-8000-000000000001'::uuid
        when 1 then '00000000-0000-4000-8000-000000000002' end,
    'Comment ' || n, case when n % 2 = 0 then 9223372036854775800 + n % 7 end,
    timestamptz '2001-08-01' + (n % 5) * interval '1 millisecond', case when n = 9 then now() end
from generate_series(0, 19) n
on conflict do nothing;

insert into task_results (id, task_id, agent_id, execution_id, result_type, content, created_at)
select md5('reference result ' || n)::uuid, md5('reference task ' || n % 4)::uuid, null,
    case when n % 2 = 0 then md5('reference execution ' || n)::uuid end, 'reference',
    (array['1.50', '[1, [2, "three"]]', 'true', '{"z": 1, "a": {"list": ["x", "y"]}}'])[1 + n % 4]::jsonb,
    timestamptz '2001-09-01'
from generate_series(0, 11) n
on conflict do nothing;

commit;
