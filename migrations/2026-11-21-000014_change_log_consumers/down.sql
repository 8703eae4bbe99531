comment on column audit_logs.service_name is 'The service that did it.';
drop table change_log_consumers;
