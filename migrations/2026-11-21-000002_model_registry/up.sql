-- The registry of AI models: what exists, where it answers and what it is good at.

create table models (
    id uuid primary key default gen_random_uuid(),
    name text not null unique
        constraint models_name_check check (char_length(name) between 1 and 100),
    display_name text not null
        constraint models_display_name_check check (char_length(display_name) between 1 and 200),
    provider text not null
        constraint models_provider_check check (char_length(provider) between 1 and 50),
    model_type text not null
        constraint models_model_type_check check (char_length(model_type) between 1 and 50),
    model_version text
        constraint models_model_version_check check (char_length(model_version) between 1 and 50),
    description text
        constraint models_description_check check (char_length(description) <= 20000),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    version integer not null default 1
);

create index models_created_at_idx on models (created_at desc, id desc);
create index models_provider_idx on models (provider, created_at desc, id desc);

create trigger models_touch before update on models
    for each row execute function touch_row();

comment on table models is 'An AI model that agents can use.';
comment on column models.id is 'Identifies the model.';
comment on column models.name is 'The unique technical name, such as "all-minilm-l6-v2".';
comment on column models.display_name is 'The name that is shown to people.';
comment on column models.provider is 'Who offers the model, such as "openai" or "local".';
comment on column models.model_type is 'The kind of model, such as "chat" or "embedding".';
comment on column models.model_version is 'The provider''s version of the model.';
comment on column models.description is 'What the model is for.';
comment on column models.created_at is 'When the model was created.';
comment on column models.updated_at is 'When the model was last changed; the database sets it.';
comment on column models.version is
    'Counts the changes of the model from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table model_endpoints (
    id uuid primary key default gen_random_uuid(),
    model_id uuid not null references models (id) on delete cascade,
    endpoint_type text not null
        constraint model_endpoints_endpoint_type_check check (char_length(endpoint_type) between 1 and 50),
    endpoint_url text
        constraint model_endpoints_endpoint_url_check check (char_length(endpoint_url) between 1 and 2048),
    auth_type text
        constraint model_endpoints_auth_type_check check (char_length(auth_type) between 1 and 50),
    headers jsonb not null default '{}'
        constraint model_endpoints_headers_check check (jsonb_typeof(headers) = 'object'),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    version integer not null default 1
);

create index model_endpoints_model_id_idx on model_endpoints (model_id, created_at desc, id desc);

create trigger model_endpoints_touch before update on model_endpoints
    for each row execute function touch_row();

comment on table model_endpoints is 'An address at which a model answers.';
comment on column model_endpoints.id is 'Identifies the endpoint.';
comment on column model_endpoints.model_id is 'The model.';
comment on column model_endpoints.endpoint_type is 'What is offered there, such as "chat" or "embeddings".';
comment on column model_endpoints.endpoint_url is 'The address.';
comment on column model_endpoints.auth_type is 'How a caller proves who it is, such as "bearer" or "none".';
comment on column model_endpoints.headers is
    'HTTP headers to send with each request. Never secrets: everybody who can read the model can read them.';
comment on column model_endpoints.created_at is 'When the endpoint was created.';
comment on column model_endpoints.updated_at is 'When the endpoint was last changed; the database sets it.';
comment on column model_endpoints.version is
    'Counts the changes of the endpoint from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';

create table model_capabilities (
    id uuid primary key default gen_random_uuid(),
    model_id uuid not null references models (id) on delete cascade,
    capability text not null
        constraint model_capabilities_capability_check check (char_length(capability) between 1 and 50),
    capability_score double precision not null
        constraint model_capabilities_capability_score_check check (capability_score between 0 and 1),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    version integer not null default 1,
    constraint model_capabilities_model_id_capability_key unique (model_id, capability)
);

create index model_capabilities_capability_idx
    on model_capabilities (capability, capability_score desc, id desc);

create trigger model_capabilities_touch before update on model_capabilities
    for each row execute function touch_row();

comment on table model_capabilities is 'What a model can do, and how well.';
comment on column model_capabilities.id is 'Identifies the capability.';
comment on column model_capabilities.model_id is 'The model.';
comment on column model_capabilities.capability is 'The name of the ability, such as "code_review".';
comment on column model_capabilities.capability_score is
    'How well the model does it, from 0.0 (not at all) to 1.0 (perfectly).';
comment on column model_capabilities.created_at is 'When the capability was created.';
comment on column model_capabilities.updated_at is
    'When the capability was last changed; the database sets it.';
comment on column model_capabilities.version is
    'Counts the changes of the capability from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else''s change.';
