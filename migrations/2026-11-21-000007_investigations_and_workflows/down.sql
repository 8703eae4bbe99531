drop table checkpoints;
drop table workflow_executions;
drop table workflows;
drop table investigations;
