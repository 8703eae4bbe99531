do $do$
declare
    t text;
begin
    foreach t in array '{users,projects,project_members,models,model_endpoints,model_capabilities,agents,tasks,agent_executions,task_results,task_comments,task_attachments,evidence,evidence_relations,evidence_credibility_history,evidence_chains,evidence_chain_links,investigations,workflows,workflow_executions,checkpoints,activity_feed}'::text[] loop
        -- With its four triggers.
        execute format('drop function %I() cascade', 'log_' || t);
    end loop;
end
$do$;

drop function change_log_page(pg_snapshot, pg_snapshot, bigint, bigint, bigint, bigint);
drop function change_log_span(pg_snapshot, pg_snapshot, xid8, bigint, bigint);
drop function change_log_set(pg_snapshot, pg_snapshot, bigint);
drop function change_log_highest(pg_snapshot);
drop table change_log_pruned;
drop table change_log;
