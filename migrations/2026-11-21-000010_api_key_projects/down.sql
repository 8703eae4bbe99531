alter table api_keys drop column project_ids;
