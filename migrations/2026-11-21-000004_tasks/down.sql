drop table task_comments;
drop table task_results;
drop table agent_executions;
drop table tasks;
