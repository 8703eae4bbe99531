// @generated automatically by Diesel CLI.

pub mod sql_types {
    #[derive(diesel::query_builder::QueryId, Clone, diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "xid8", schema = "pg_catalog"))]
    pub struct Xid8;
}

diesel::table! {
    /// What happened, in words for people.
    activity_feed (id) {
        /// Identifies the activity.
        id -> Uuid,
        /// The project in which it happened; null for what concerns the whole platform.
        project_id -> Nullable<Uuid>,
        /// The user who did it.
        actor_user_id -> Nullable<Uuid>,
        /// The agent that did it.
        actor_agent_id -> Nullable<Uuid>,
        /// What happened, as a short name such as "task.completed".
        activity_type -> Text,
        /// What happened, in one line.
        title -> Text,
        /// What happened, at length.
        description -> Nullable<Text>,
        /// The kind of row that it happened to, such as "task".
        resource_type -> Nullable<Text>,
        /// The row that it happened to.
        resource_id -> Nullable<Uuid>,
        /// Who may see it: public (everybody), project (the members of the project) or private (the one who did it).
        visibility -> Text,
        /// Further facts about the activity as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// When the activity was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// One run of an agent: what it was given, what came out, what it cost.
    agent_executions (id) {
        /// Identifies the execution.
        id -> Uuid,
        /// The agent that ran.
        agent_id -> Uuid,
        /// The task that the run was for.
        task_id -> Nullable<Uuid>,
        /// The project that the run belongs to.
        project_id -> Uuid,
        /// How the run stands: running, succeeded, failed or cancelled.
        status -> Text,
        /// What the agent was given.
        input -> Jsonb,
        /// What the agent returned.
        result -> Nullable<Jsonb>,
        /// Why the run failed.
        error_message -> Nullable<Text>,
        /// The number of tokens that the model read.
        input_tokens -> Nullable<Int4>,
        /// The number of tokens that the model wrote.
        output_tokens -> Nullable<Int4>,
        /// What the run cost, in US dollars.
        cost_usd -> Nullable<Float8>,
        /// How long the run took, in milliseconds.
        duration_ms -> Nullable<Int4>,
        /// When the run began.
        started_at -> Timestamptz,
        /// When the run ended.
        finished_at -> Nullable<Timestamptz>,
        /// When the execution was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// A program that works on tasks and collects evidence.
    agents (id) {
        /// Identifies the agent.
        id -> Uuid,
        /// The name that another system gave to the agent; unique, so that an import can be repeated.
        external_id -> Nullable<Text>,
        /// The unique name, such as "reviewer".
        name -> Text,
        /// The kind of agent, such as "orchestrator", "codegen" or "security".
        #[sql_name = "type"]
        type_ -> Text,
        /// The version of the agent's own software.
        agent_version -> Text,
        /// What the agent does.
        description -> Nullable<Text>,
        /// Whether the agent takes work: active, inactive, or in maintenance.
        status -> Text,
        /// The address at which the agent takes requests.
        endpoint_url -> Nullable<Text>,
        /// The address that tells whether the agent is well.
        health_check_url -> Nullable<Text>,
        /// What the agent can do, as short names such as "code_review".
        capabilities -> Array<Text>,
        /// The agent's settings as a JSON object. Never secrets.
        configuration -> Jsonb,
        /// The AI model that the agent uses.
        model_id -> Nullable<Uuid>,
        /// When the agent last reported that it is alive.
        last_heartbeat_at -> Nullable<Timestamptz>,
        /// When the agent joined the registry.
        registered_at -> Timestamptz,
        /// When the agent was created.
        created_at -> Timestamptz,
        /// When the agent was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the agent was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the agent from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// A key with which a program signs in. The key itself is not stored.
    api_keys (id) {
        /// Identifies the key.
        id -> Uuid,
        /// The user that the key speaks for.
        user_id -> Nullable<Uuid>,
        /// The agent that the key speaks for; then it speaks for no user.
        agent_id -> Nullable<Uuid>,
        /// What the key is for.
        name -> Text,
        /// The first characters of the key, by which people can tell keys apart.
        prefix -> Text,
        /// The SHA-256 of the key as 64 hexadecimal digits.
        key_hash -> Text,
        /// What the key may do at most: viewer, analyst, agent or admin.
        role -> Text,
        /// When the key stops working.
        expires_at -> Nullable<Timestamptz>,
        /// When the key was withdrawn.
        revoked_at -> Nullable<Timestamptz>,
        /// When the key was last used.
        last_used_at -> Nullable<Timestamptz>,
        /// When the key was created.
        created_at -> Timestamptz,
        /// The projects that the key may see at most; null for those of its user, and for all of them if it is an administrator's.
        project_ids -> Nullable<Array<Uuid>>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::Xid8;

    /// The audit trail: who did what to which row. Entries are chained by hashes.
    audit_logs (id) {
        /// Identifies the entry.
        id -> Uuid,
        /// The place of the entry in the trail; gaps are possible.
        seq -> Int8,
        /// The project in which it happened; null for what concerns the whole platform.
        project_id -> Nullable<Uuid>,
        /// What happened, as a short name such as "evidence.verified".
        event_type -> Text,
        /// The kind of action: create, read, update, delete, execute, login or other.
        action -> Text,
        /// The user who did it.
        actor_user_id -> Nullable<Uuid>,
        /// The agent that did it.
        actor_agent_id -> Nullable<Uuid>,
        /// The service that did it: "external" for another program that wrote to the database, "import" for the command, "recorder" for the gateway's own reader of the change log.
        service_name -> Nullable<Text>,
        /// The kind of row that it was done to, such as "task".
        resource_type -> Text,
        /// The row that it was done to.
        resource_id -> Nullable<Uuid>,
        /// The changed values before, by column.
        old_values -> Nullable<Jsonb>,
        /// The changed values after, by column.
        new_values -> Nullable<Jsonb>,
        /// Further details of the action.
        data -> Jsonb,
        /// The session in which it was done.
        session_id -> Nullable<Text>,
        /// The request that did it.
        request_id -> Nullable<Text>,
        /// The network address of the client.
        ip_address -> Nullable<Text>,
        /// How the client's software named itself.
        user_agent -> Nullable<Text>,
        /// The hash of the entry before this one, as 64 hexadecimal digits; null for the first.
        prev_hash -> Nullable<Text>,
        /// The SHA-256 over this entry and prev_hash, as 64 hexadecimal digits.
        hash -> Nullable<Text>,
        /// When the entry was created.
        created_at -> Timestamptz,
        /// The transaction that wrote the entry, and did what it tells of.
        xid -> Xid8,
        /// The place of the entry in the chain, from 1 without a gap; null until it is sealed.
        seal -> Nullable<Int8>,
    }
}

diesel::table! {
    /// The end of the chain after each batch that was sealed: entries that are taken off the end are missed here.
    audit_seals (seal) {
        /// The place of the last entry of the batch.
        seal -> Int8,
        /// The hash of that entry.
        hash -> Text,
        /// When the batch was sealed.
        sealed_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::Xid8;

    /// Every committed change of an entity, written by triggers in the transaction of the change.
    change_log (xid, seq) {
        /// The transaction that made the change; not that of a savepoint in it.
        xid -> Xid8,
        /// The order in which the changes were made: those of one transaction, and those of one row by whatever transactions, because who changes a row waits for who changed it before. It says nothing about the order of commits.
        seq -> Int8,
        /// The table that the row belongs to.
        entity -> Text,
        /// The row; null if the whole table was emptied.
        row_id -> Nullable<Uuid>,
        /// What was done: insert, update, delete or truncate.
        op -> Text,
        /// The project of the row, that of a deleted one before it was deleted; null for rows without a project, and for parts of a row that is gone with them.
        project_id -> Nullable<Uuid>,
        /// The project that the row was moved out of; null if it was not moved.
        old_project_id -> Nullable<Uuid>,
        /// The foreign keys and the short columns that lists are filtered and ordered by, as they are now (before the deletion, for a deleted row); null for a list of texts that is long. An update has the former values of those that it changed under "old", and the names of all columns that it changed, save version and updated_at, under "changed".
        keys -> Jsonb,
        /// When the statement began that made the change.
        at -> Timestamptz,
    }
}

diesel::table! {
    /// How much of the change log those have dealt with who write down what they read.
    change_log_consumers (name) {
        /// Who it is, such as "recorder".
        name -> Text,
        /// All changes up to this place in the log are dealt with: a snapshot and, within a set of changes, the set's end and the last change.
        place -> Text,
        /// When it last moved.
        saved_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::Xid8;

    /// How much of the change log was removed: one row.
    change_log_pruned (id) {
        /// Always true, so that there is one row at most.
        id -> Bool,
        /// The last transaction with removed changes. A reader that has not seen this one and all before it has missed something.
        xid -> Xid8,
        /// When changes were last removed; null if none were yet.
        pruned_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    /// The saved state of a workflow run after a step, from which the run can go on.
    checkpoints (id) {
        /// Identifies the checkpoint.
        id -> Uuid,
        /// The run.
        workflow_execution_id -> Uuid,
        /// The place of the checkpoint in its run, counted from 0.
        position -> Int4,
        /// The name of the step that was finished.
        step -> Text,
        /// Everything that the run needs to go on from here.
        state -> Jsonb,
        /// When the checkpoint was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// A piece of evidence: something that supports or contradicts a claim, with its source and how much it can be trusted.
    evidence (id) {
        /// Identifies the piece of evidence.
        id -> Uuid,
        /// The name that another system gave to the piece of evidence; unique, so that an import can be repeated.
        external_id -> Nullable<Text>,
        /// The project that the evidence belongs to.
        project_id -> Uuid,
        /// The task for which the evidence was collected.
        task_id -> Nullable<Uuid>,
        /// The agent that collected the evidence.
        agent_id -> Nullable<Uuid>,
        /// The evidence in one line.
        title -> Text,
        /// The full text of the evidence, at most one million characters.
        content -> Text,
        /// What kind of source the evidence comes from.
        source_type -> Text,
        /// The address of the source.
        source_url -> Nullable<Text>,
        /// The field of knowledge that the evidence belongs to: general, financial, legal or social.
        domain -> Text,
        /// How much the content can be trusted, from 0.0 (not at all) to 1.0 (fully).
        credibility_score -> Float8,
        /// Whether a person has confirmed the evidence.
        verified -> Bool,
        /// The user who confirmed or rejected the evidence.
        verified_by_user_id -> Nullable<Uuid>,
        /// When the evidence was last confirmed or rejected.
        verified_at -> Nullable<Timestamptz>,
        /// What the user who checked the evidence wrote about it.
        verification_note -> Nullable<Text>,
        /// The SHA-256 of the content as 64 hexadecimal digits; the database computes it. Equal content has an equal hash.
        content_hash -> Text,
        /// The language of the content as a BCP 47 tag such as "en", or the name of a programming language.
        language -> Nullable<Text>,
        /// Free labels.
        tags -> Array<Text>,
        /// Further facts about the piece of evidence as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// When the evidence was collected from its source.
        collected_at -> Timestamptz,
        /// When the evidence stops being valid.
        expires_at -> Nullable<Timestamptz>,
        /// When the piece of evidence was created.
        created_at -> Timestamptz,
        /// When the piece of evidence was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the piece of evidence was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the piece of evidence from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// One step of an evidence chain: a piece of evidence, the part that it plays, and the step that it follows from.
    evidence_chain_links (id) {
        /// Identifies the link.
        id -> Uuid,
        /// The chain.
        chain_id -> Uuid,
        /// The evidence of this step.
        evidence_id -> Uuid,
        /// The step of the same chain that this one follows from; null for a step that starts a line of thought.
        parent_link_id -> Nullable<Uuid>,
        /// The place of the step in the chain, counted from 0; no two steps of a chain share one.
        position -> Int4,
        /// The part that the evidence plays: premise, support, contradiction, context or conclusion.
        role -> Text,
        /// Why the evidence belongs here.
        rationale -> Nullable<Text>,
        /// When the link was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// A claim or decision together with the evidence that it rests on, and its conclusion.
    evidence_chains (id) {
        /// Identifies the chain.
        id -> Uuid,
        /// The name that another system gave to the chain; unique, so that an import can be repeated.
        external_id -> Nullable<Text>,
        /// The project that the chain belongs to.
        project_id -> Uuid,
        /// The task that the claim or decision is about.
        task_id -> Nullable<Uuid>,
        /// What is claimed, or what is to be decided.
        claim -> Text,
        /// What the evidence led to.
        conclusion -> Nullable<Text>,
        /// How the claim stands: open, concluded or rejected.
        status -> Text,
        /// How sure the conclusion is, from 0.0 (a guess) to 1.0 (certain); null while nobody has judged it.
        confidence -> Nullable<Float8>,
        /// The user who opened the chain.
        created_by_user_id -> Nullable<Uuid>,
        /// The agent that opened the chain.
        created_by_agent_id -> Nullable<Uuid>,
        /// When the claim was concluded or rejected.
        concluded_at -> Nullable<Timestamptz>,
        /// Further facts about the chain as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// When the chain was created.
        created_at -> Timestamptz,
        /// When the chain was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the chain was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the chain from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// One change of how much a piece of evidence is trusted.
    evidence_credibility_history (id) {
        /// Identifies the credibility change.
        id -> Uuid,
        /// The evidence.
        evidence_id -> Uuid,
        /// The score before the change, from 0.0 to 1.0; null for the first one.
        old_score -> Nullable<Float8>,
        /// The score after the change, from 0.0 (not trusted at all) to 1.0 (fully).
        new_score -> Float8,
        /// Why the score was changed.
        reason -> Text,
        /// The user who changed the score.
        changed_by_user_id -> Nullable<Uuid>,
        /// The agent that changed the score.
        changed_by_agent_id -> Nullable<Uuid>,
        /// When the credibility change was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// How one piece of evidence bears on another. A relation is read as "from kind to": from supports to.
    evidence_relations (id) {
        /// Identifies the relation.
        id -> Uuid,
        /// The evidence that the relation starts at, for instance the one that supports.
        from_evidence_id -> Uuid,
        /// The evidence that the relation points to, for instance the one that is supported.
        to_evidence_id -> Uuid,
        /// How the first bears on the second: supports, contradicts, derives_from, duplicates or related.
        kind -> Text,
        /// How strong the relation is, from 0.0 (hardly) to 1.0 (fully).
        strength -> Float8,
        /// Why the relation holds.
        note -> Nullable<Text>,
        /// The user who stated the relation.
        created_by_user_id -> Nullable<Uuid>,
        /// The agent that stated the relation.
        created_by_agent_id -> Nullable<Uuid>,
        /// When the relation was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// How far the import of a file has come, so that it can go on where it stopped.
    import_progress (source_sha256) {
        /// The SHA-256 of the file as 64 hexadecimal digits.
        source_sha256 -> Text,
        /// The name of the file, for people.
        source_name -> Text,
        /// The number of lines that have been imported.
        lines_done -> Int8,
        /// When the import began.
        started_at -> Timestamptz,
        /// When the import last advanced.
        updated_at -> Timestamptz,
        /// When the import was complete; null while lines are missing.
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    /// One question that agents look into, with what they found.
    investigations (id) {
        /// Identifies the investigation.
        id -> Uuid,
        /// The name that another system gave to the investigation; unique, so that an import can be repeated.
        external_id -> Nullable<Text>,
        /// The project that the investigation belongs to.
        project_id -> Uuid,
        /// The task that the investigation is for.
        task_id -> Nullable<Uuid>,
        /// The user who asked.
        user_id -> Nullable<Uuid>,
        /// The agent that leads the investigation.
        agent_id -> Nullable<Uuid>,
        /// The question as it was asked.
        query -> Text,
        /// How far the investigation is: pending, processing, completed or error.
        status -> Text,
        /// What was found, as a JSON object.
        results -> Nullable<Jsonb>,
        /// Further facts about the investigation as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// Why the investigation ended with an error.
        error_message -> Nullable<Text>,
        /// How sure the results are, from 0.0 (a guess) to 1.0 (certain).
        confidence_score -> Nullable<Float8>,
        /// The number of anomalies that were found.
        anomalies_found -> Int4,
        /// How long the investigation took, in milliseconds.
        processing_time_ms -> Nullable<Int4>,
        /// When the investigation ended.
        completed_at -> Nullable<Timestamptz>,
        /// When the investigation was created.
        created_at -> Timestamptz,
        /// When the investigation was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the investigation was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the investigation from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// A measured number at a point in time.
    metrics (id) {
        /// Identifies the measurement.
        id -> Uuid,
        /// The project that was measured; null for the platform itself.
        project_id -> Nullable<Uuid>,
        /// The agent that was measured.
        agent_id -> Nullable<Uuid>,
        /// What was measured, such as "test_coverage".
        name -> Text,
        /// The measured number, in the given unit.
        value -> Float8,
        /// The unit of the number, such as "ms" or "percent".
        unit -> Nullable<Text>,
        /// Further dimensions of the measurement, as a JSON object.
        tags -> Jsonb,
        /// When it was measured.
        measured_at -> Timestamptz,
        /// When the measurement was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// What a model can do, and how well.
    model_capabilities (id) {
        /// Identifies the capability.
        id -> Uuid,
        /// The model.
        model_id -> Uuid,
        /// The name of the ability, such as "code_review".
        capability -> Text,
        /// How well the model does it, from 0.0 (not at all) to 1.0 (perfectly).
        capability_score -> Float8,
        /// When the capability was created.
        created_at -> Timestamptz,
        /// When the capability was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// Counts the changes of the capability from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// An address at which a model answers.
    model_endpoints (id) {
        /// Identifies the endpoint.
        id -> Uuid,
        /// The model.
        model_id -> Uuid,
        /// What is offered there, such as "chat" or "embeddings".
        endpoint_type -> Text,
        /// The address.
        endpoint_url -> Nullable<Text>,
        /// How a caller proves who it is, such as "bearer" or "none".
        auth_type -> Nullable<Text>,
        /// HTTP headers to send with each request. Never secrets: everybody who can read the model can read them.
        headers -> Jsonb,
        /// When the endpoint was created.
        created_at -> Timestamptz,
        /// When the endpoint was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// Counts the changes of the endpoint from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// An AI model that agents can use.
    models (id) {
        /// Identifies the model.
        id -> Uuid,
        /// The unique technical name, such as "all-minilm-l6-v2".
        name -> Text,
        /// The name that is shown to people.
        display_name -> Text,
        /// Who offers the model, such as "openai" or "local".
        provider -> Text,
        /// The kind of model, such as "chat" or "embedding".
        model_type -> Text,
        /// The provider's version of the model.
        model_version -> Nullable<Text>,
        /// What the model is for.
        description -> Nullable<Text>,
        /// When the model was created.
        created_at -> Timestamptz,
        /// When the model was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// Counts the changes of the model from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// Rows that are not in the vector index because the embedder does not take its text, though it takes others.
    parked_rows (row_id, model) {
        /// The row: of any entity that is searched.
        row_id -> Uuid,
        /// The model that does not take it.
        model -> Text,
        /// The version of the row that was tried last; a higher one is tried by itself.
        row_version -> Int4,
        /// What the embedder said last, without the text and without secrets.
        reason -> Text,
        /// How often it was tried.
        attempts -> Int4,
        /// When it was given up first.
        parked_at -> Timestamptz,
        /// When it was tried last.
        attempted_at -> Timestamptz,
        /// Since when somebody wants it to be tried again; null if nobody does.
        retry_requested_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    /// A GraphQL document that clients may run by its hash alone.
    persisted_documents (hash) {
        /// The SHA-256 of the document as 64 hexadecimal digits.
        hash -> Text,
        /// The GraphQL document.
        document -> Text,
        /// The operation of the document that is run.
        operation_name -> Nullable<Text>,
        /// Whether an operator registered the document, rather than a client.
        trusted -> Bool,
        /// When the document was created.
        created_at -> Timestamptz,
        /// When the document was last run.
        last_used_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    /// The messages that were already handled, so that a repeated one is answered and not done again.
    processed_messages (message_id) {
        /// The idempotency key of the message, with the scope that it is unique in.
        message_id -> Text,
        /// The SHA-256 of the message's body as 64 hexadecimal digits: the same key with another body is a conflict.
        body_hash -> Text,
        /// The answer that was given; null while the message is being handled.
        response -> Nullable<Jsonb>,
        /// When the message was handled.
        processed_at -> Timestamptz,
        /// When the message may be forgotten: 48 hours after it was handled, unless said otherwise.
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    /// Who belongs to a project, and in which role.
    project_members (id) {
        /// Identifies the membership.
        id -> Uuid,
        /// The project.
        project_id -> Uuid,
        /// The member.
        user_id -> Uuid,
        /// What the member may do in this project: owner, maintainer, member, or viewer (reads only).
        role -> Text,
        /// When the membership was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// A software project: the space that tasks, evidence and decisions belong to, and the border of who may see them.
    projects (id) {
        /// Identifies the project.
        id -> Uuid,
        /// The name that another system gave to the project; unique, so that an import can be repeated.
        external_id -> Nullable<Text>,
        /// The short unique name for addresses, such as "moe-router".
        slug -> Text,
        /// The name that is shown to people.
        name -> Text,
        /// What the project is about.
        description -> Nullable<Text>,
        /// Whether work goes on: active, paused or archived.
        status -> Text,
        /// The address of the project's source repository.
        repository_url -> Nullable<Text>,
        /// The branch that work is merged into, such as "main".
        default_branch -> Nullable<Text>,
        /// The languages, frameworks and services that the project uses.
        tech_stack -> Array<Text>,
        /// Measured facts about the project, such as the rate of merged pull requests or the test coverage.
        metrics -> Jsonb,
        /// Further facts about the project as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// The user who answers for the project.
        owner_id -> Nullable<Uuid>,
        /// When the project was created.
        created_at -> Timestamptz,
        /// When the project was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the project was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the project from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// A file that belongs to a task.
    task_attachments (id) {
        /// Identifies the attachment.
        id -> Uuid,
        /// The task.
        task_id -> Uuid,
        /// The evidence that the file holds.
        evidence_id -> Nullable<Uuid>,
        /// The user who uploaded the file.
        uploaded_by_user_id -> Nullable<Uuid>,
        /// The name of the file.
        file_name -> Text,
        /// The media type of the file, such as "image/png".
        media_type -> Text,
        /// The size of the file in bytes.
        size_bytes -> Int8,
        /// Where the file lies in the file store.
        storage_path -> Text,
        /// The SHA-256 of the file as 64 hexadecimal digits.
        sha256 -> Nullable<Text>,
        /// When the attachment was created.
        created_at -> Timestamptz,
        /// When the attachment was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    /// A remark on a task, by a user or by an agent.
    task_comments (id) {
        /// Identifies the comment.
        id -> Uuid,
        /// The task.
        task_id -> Uuid,
        /// The user who wrote the comment.
        author_user_id -> Nullable<Uuid>,
        /// The agent that wrote the comment; then no user did.
        author_agent_id -> Nullable<Uuid>,
        /// The text, in Markdown.
        body -> Text,
        /// The number of the comment at GitHub.
        github_comment_id -> Nullable<Int8>,
        /// When the comment was created.
        created_at -> Timestamptz,
        /// When the comment was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the comment was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the comment from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// Something that a task produced.
    task_results (id) {
        /// Identifies the result.
        id -> Uuid,
        /// The task.
        task_id -> Uuid,
        /// The agent that produced the result.
        agent_id -> Nullable<Uuid>,
        /// The run that produced the result.
        execution_id -> Nullable<Uuid>,
        /// The kind of result, such as "summary" or "patch".
        result_type -> Text,
        /// The result itself, any JSON value.
        content -> Jsonb,
        /// Further facts about the result as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// When the result was created.
        created_at -> Timestamptz,
    }
}

diesel::table! {
    /// A piece of work for a user or an agent: an issue, a review, an analysis.
    tasks (id) {
        /// Identifies the task.
        id -> Uuid,
        /// The name that another system gave to the task; unique, so that an import can be repeated.
        external_id -> Nullable<Text>,
        /// The project that the task belongs to.
        project_id -> Uuid,
        /// The task that this one is a part of.
        parent_id -> Nullable<Uuid>,
        /// The task in one line.
        title -> Text,
        /// What is wanted, as a short name that agents are chosen by, such as "code_review".
        intent -> Text,
        /// How far the task is: pending, processing, completed, failed or cancelled.
        status -> Text,
        /// How urgent the task is, from 1 (lowest) to 5 (highest).
        priority -> Int4,
        /// A free grouping, such as "bug" or "feature".
        category -> Nullable<Text>,
        /// The details that the worker needs, as a JSON object.
        content -> Jsonb,
        /// Free labels.
        tags -> Array<Text>,
        /// Further facts about the task as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// The user who created the task.
        created_by_user_id -> Nullable<Uuid>,
        /// The agent that created the task.
        created_by_agent_id -> Nullable<Uuid>,
        /// The user who is to do the task; a task never has an assigned agent as well.
        assigned_user_id -> Nullable<Uuid>,
        /// The agent that is to do the task; a task never has an assigned user as well.
        assigned_agent_id -> Nullable<Uuid>,
        /// How often the task was tried again.
        retry_count -> Int4,
        /// How often the task may be tried again, at most 100.
        max_retries -> Int4,
        /// How long one try may take, in seconds, at most one week.
        timeout_seconds -> Int4,
        /// Why the last try failed.
        error_message -> Nullable<Text>,
        /// The number of the issue at GitHub.
        github_issue_number -> Nullable<Int4>,
        /// The number of the pull request at GitHub.
        github_pr_number -> Nullable<Int4>,
        /// The address of the issue or pull request at GitHub.
        github_url -> Nullable<Text>,
        /// When the task should be done.
        due_at -> Nullable<Timestamptz>,
        /// When the work began.
        started_at -> Nullable<Timestamptz>,
        /// When the task was completed.
        completed_at -> Nullable<Timestamptz>,
        /// When the task failed for good.
        failed_at -> Nullable<Timestamptz>,
        /// When the task was created.
        created_at -> Timestamptz,
        /// When the task was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the task was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the task from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// A person, or a service that acts like one.
    users (id) {
        /// Identifies the user.
        id -> Uuid,
        /// The name that another system gave to the user; unique, so that an import can be repeated.
        external_id -> Nullable<Text>,
        /// The short unique name, as used for signing in and for mentions.
        username -> Text,
        /// The name that is shown to people.
        display_name -> Text,
        /// The unique e-mail address.
        email -> Nullable<Text>,
        /// What the user may do everywhere: viewer reads, analyst also judges evidence, agent also writes results, admin may do everything.
        role -> Text,
        /// The user's login at GitHub.
        github_login -> Nullable<Text>,
        /// The user's own settings for user interfaces.
        preferences -> Jsonb,
        /// Further facts about the user as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// When the user last made a request.
        last_seen_at -> Nullable<Timestamptz>,
        /// When the user was created.
        created_at -> Timestamptz,
        /// When the user was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the user was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the user from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// One run of a workflow.
    workflow_executions (id) {
        /// Identifies the workflow run.
        id -> Uuid,
        /// The workflow.
        workflow_id -> Uuid,
        /// The project that the run belongs to.
        project_id -> Uuid,
        /// The task that the run is for.
        task_id -> Nullable<Uuid>,
        /// The user who started the run.
        started_by_user_id -> Nullable<Uuid>,
        /// The agent that started the run.
        started_by_agent_id -> Nullable<Uuid>,
        /// How the run stands: pending, running, paused, succeeded, failed or cancelled.
        status -> Text,
        /// The name of the step that the run has reached.
        current_step -> Nullable<Text>,
        /// What the run was given.
        input -> Jsonb,
        /// What the run produced.
        result -> Nullable<Jsonb>,
        /// Why the run failed.
        error_message -> Nullable<Text>,
        /// When the run began.
        started_at -> Nullable<Timestamptz>,
        /// When the run ended.
        finished_at -> Nullable<Timestamptz>,
        /// When the workflow run was created.
        created_at -> Timestamptz,
        /// When the workflow run was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// Counts the changes of the workflow run from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::table! {
    /// A plan of steps that can be run again and again.
    workflows (id) {
        /// Identifies the workflow.
        id -> Uuid,
        /// The name that another system gave to the workflow; unique, so that an import can be repeated.
        external_id -> Nullable<Text>,
        /// The project that the workflow belongs to.
        project_id -> Uuid,
        /// The name that is shown to people.
        name -> Text,
        /// What the workflow is for.
        description -> Nullable<Text>,
        /// Whether the workflow may run: draft, active or archived.
        status -> Text,
        /// The steps and how they follow each other, as a JSON object.
        definition -> Jsonb,
        /// Further facts about the workflow as a JSON object; nothing in it is interpreted.
        metadata -> Jsonb,
        /// The user who created the workflow.
        created_by_user_id -> Nullable<Uuid>,
        /// The agent that created the workflow.
        created_by_agent_id -> Nullable<Uuid>,
        /// When the workflow was created.
        created_at -> Timestamptz,
        /// When the workflow was last changed; the database sets it.
        updated_at -> Timestamptz,
        /// When the workflow was deleted. Deleted rows are kept but are no longer shown.
        deleted_at -> Nullable<Timestamptz>,
        /// Counts the changes of the workflow from 1; the database raises it by one on every change. Send it as expectedVersion to avoid overwriting somebody else's change.
        version -> Int4,
    }
}

diesel::joinable!(activity_feed -> agents (actor_agent_id));
diesel::joinable!(activity_feed -> projects (project_id));
diesel::joinable!(activity_feed -> users (actor_user_id));
diesel::joinable!(agent_executions -> agents (agent_id));
diesel::joinable!(agent_executions -> projects (project_id));
diesel::joinable!(agent_executions -> tasks (task_id));
diesel::joinable!(agents -> models (model_id));
diesel::joinable!(api_keys -> agents (agent_id));
diesel::joinable!(api_keys -> users (user_id));
diesel::joinable!(checkpoints -> workflow_executions (workflow_execution_id));
diesel::joinable!(evidence -> agents (agent_id));
diesel::joinable!(evidence -> projects (project_id));
diesel::joinable!(evidence -> tasks (task_id));
diesel::joinable!(evidence -> users (verified_by_user_id));
diesel::joinable!(evidence_chain_links -> evidence (evidence_id));
diesel::joinable!(evidence_chain_links -> evidence_chains (chain_id));
diesel::joinable!(evidence_chains -> agents (created_by_agent_id));
diesel::joinable!(evidence_chains -> projects (project_id));
diesel::joinable!(evidence_chains -> tasks (task_id));
diesel::joinable!(evidence_chains -> users (created_by_user_id));
diesel::joinable!(evidence_credibility_history -> agents (changed_by_agent_id));
diesel::joinable!(evidence_credibility_history -> evidence (evidence_id));
diesel::joinable!(evidence_credibility_history -> users (changed_by_user_id));
diesel::joinable!(evidence_relations -> agents (created_by_agent_id));
diesel::joinable!(evidence_relations -> users (created_by_user_id));
diesel::joinable!(investigations -> agents (agent_id));
diesel::joinable!(investigations -> projects (project_id));
diesel::joinable!(investigations -> tasks (task_id));
diesel::joinable!(investigations -> users (user_id));
diesel::joinable!(metrics -> agents (agent_id));
diesel::joinable!(metrics -> projects (project_id));
diesel::joinable!(model_capabilities -> models (model_id));
diesel::joinable!(model_endpoints -> models (model_id));
diesel::joinable!(project_members -> projects (project_id));
diesel::joinable!(project_members -> users (user_id));
diesel::joinable!(projects -> users (owner_id));
diesel::joinable!(task_attachments -> evidence (evidence_id));
diesel::joinable!(task_attachments -> tasks (task_id));
diesel::joinable!(task_attachments -> users (uploaded_by_user_id));
diesel::joinable!(task_comments -> agents (author_agent_id));
diesel::joinable!(task_comments -> tasks (task_id));
diesel::joinable!(task_comments -> users (author_user_id));
diesel::joinable!(task_results -> agent_executions (execution_id));
diesel::joinable!(task_results -> agents (agent_id));
diesel::joinable!(task_results -> tasks (task_id));
diesel::joinable!(tasks -> projects (project_id));
diesel::joinable!(workflow_executions -> agents (started_by_agent_id));
diesel::joinable!(workflow_executions -> projects (project_id));
diesel::joinable!(workflow_executions -> tasks (task_id));
diesel::joinable!(workflow_executions -> users (started_by_user_id));
diesel::joinable!(workflow_executions -> workflows (workflow_id));
diesel::joinable!(workflows -> agents (created_by_agent_id));
diesel::joinable!(workflows -> projects (project_id));
diesel::joinable!(workflows -> users (created_by_user_id));

diesel::allow_tables_to_appear_in_same_query!(
    activity_feed,
    agent_executions,
    agents,
    api_keys,
    audit_logs,
    audit_seals,
    change_log,
    change_log_consumers,
    change_log_pruned,
    checkpoints,
    evidence,
    evidence_chain_links,
    evidence_chains,
    evidence_credibility_history,
    evidence_relations,
    import_progress,
    investigations,
    metrics,
    model_capabilities,
    model_endpoints,
    models,
    parked_rows,
    persisted_documents,
    processed_messages,
    project_members,
    projects,
    task_attachments,
    task_comments,
    task_results,
    tasks,
    users,
    workflow_executions,
    workflows,
);
