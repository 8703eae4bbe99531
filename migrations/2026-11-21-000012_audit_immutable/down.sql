drop trigger audit_logs_no_truncate on audit_logs;
drop trigger audit_logs_immutable on audit_logs;
drop function refuse_audit_change();
