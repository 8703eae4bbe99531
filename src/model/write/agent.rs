//! What is done to agents: register, sign life, set the status.

use futures_util::FutureExt;
use uuid::Uuid;

use super::Write;
use crate::error::{Code, Error, Result};
use crate::model::agent::STATUS;
use crate::model::mutation::{Field, Kind, Mutation, Row, Values};
use crate::model::viewer::Role;

/// An agent that asks means itself.
const ID: Field =
    Field::id("The agent; the one that asks unless given. An agent may name none but itself.").but_optional();

pub(crate) static REGISTER: Mutation = Mutation {
    name: "registerAgent",
    doc: "Adds an agent to the registry. Its name must be new there.",
    returns: "Agent",
    list: false,
    needs: Role::Admin,
    table: "agents",
    changes: false,
    fields: &[
        Field::needed("name", "name", Kind::Text(1, 100)),
        Field::needed("type", "type", Kind::Text(1, 50)),
        Field::needed("agentVersion", "agent_version", Kind::Text(1, 50)),
        Field::new("description", "description", Kind::Text(0, 20_000)),
        Field::new("status", "status", Kind::Enum(&STATUS)),
        Field::new("endpointUrl", "endpoint_url", Kind::Text(1, 2_048)),
        Field::new("healthCheckUrl", "health_check_url", Kind::Text(1, 2_048)),
        Field::new("capabilities", "capabilities", Kind::Texts),
        Field::new("configuration", "configuration", Kind::Object),
    ],
    run: |write, values| register(write, values).boxed(),
};

pub(crate) static HEARTBEAT: Mutation = Mutation {
    name: "heartbeat",
    doc: "Notes that an agent is alive.",
    needs: Role::Agent,
    changes: true,
    fields: &[ID],
    run: |write, values| heartbeat(write, values).boxed(),
    ..REGISTER
};

pub(crate) static SET_STATUS: Mutation = Mutation {
    name: "setAgentStatus",
    doc: "Says whether an agent takes work.",
    needs: Role::Agent,
    changes: true,
    fields: &[ID, Field::needed("status", "status", Kind::Enum(&STATUS))],
    run: |write, values| set_status(write, values).boxed(),
    ..REGISTER
};

async fn register(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    let row = values.row(REGISTER.fields);
    write.insert_one("Agent", "agent.registered", values, None, row).await
}

async fn heartbeat(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    change(write, values, "agent.heartbeat", Row::from([("last_heartbeat_at", "now".into())])).await
}

async fn set_status(write: &mut Write<'_>, values: &Values) -> Result<Vec<Uuid>> {
    change(write, values, "agent.status_changed", values.row(SET_STATUS.fields)).await
}

/// Changes the agent that is named, or that asks.
async fn change(write: &mut Write<'_>, values: &Values, event: &'static str, row: Row) -> Result<Vec<Uuid>> {
    let own = write.viewer.agent_id;
    let Some(id) = values.uuid("id").or(own) else {
        return Err(Error::bad_input(values.at("id"), "is needed from whoever is no agent"));
    };
    if write.viewer.role != Role::Admin && own != Some(id) {
        return Err(
            Error::new(Code::Forbidden, "an agent may do this to none but itself").at(values.at("id"))
        );
    }
    let mut values = values.clone();
    values.fields.insert("id", id.to_string().into());
    let locked = write.lock("Agent", &values, "id", row.keys().copied()).await?;
    write.update(&locked, event, &values, row).await
}
