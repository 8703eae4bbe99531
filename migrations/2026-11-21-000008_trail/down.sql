drop table metrics;
drop table activity_feed;
drop table audit_logs;
