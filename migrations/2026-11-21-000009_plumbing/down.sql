drop table import_progress;
drop table persisted_documents;
drop table api_keys;
drop table processed_messages;
