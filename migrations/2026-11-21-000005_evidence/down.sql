drop table task_attachments;
drop table evidence_credibility_history;
drop table evidence_relations;
drop table evidence;
drop function evidence_content_hash(text);
