//! The entities: rows and their SQL, and nothing that knows GraphQL or HTTP.

pub(crate) mod import;
