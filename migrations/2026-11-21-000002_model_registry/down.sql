drop table model_capabilities;
drop table model_endpoints;
drop table models;
