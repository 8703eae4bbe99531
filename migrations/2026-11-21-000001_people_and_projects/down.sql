drop table project_members;
drop table projects;
drop table users;
drop function touch_row();
