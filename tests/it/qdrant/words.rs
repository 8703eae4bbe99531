//! The protocol's words in the engine's.

use std::collections::HashMap;

use chrono::DateTime;
use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::{self as api, vector, vector_input, vector_output, vectors_output};
use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    AnyVariants, Condition, DateTimeWrapper, FieldCondition, Filter, HasIdCondition, IsEmptyCondition,
    JsonPath, Match, Payload, PointId, PointStruct, PointStructPersisted, Range, SparseVector, ValueVariants,
    Vector, VectorInternal, VectorStructInternal, Vectors,
};
use serde_json::Value;
use tonic::Status;

pub(super) fn id(id: api::PointId) -> PointId {
    match id.point_id_options.unwrap() {
        PointIdOptions::Uuid(text) => PointId::Uuid(text.parse().unwrap()),
        PointIdOptions::Num(number) => PointId::NumId(number),
    }
}

pub(super) fn id_back(id: PointId) -> api::PointId {
    match id {
        PointId::Uuid(id) => id.to_string().into(),
        PointId::NumId(number) => number.into(),
    }
}

pub(super) fn path(key: &str) -> Result<JsonPath, Status> {
    key.parse().map_err(|()| Status::invalid_argument(key))
}

pub(super) fn point(point: api::PointStruct) -> Result<PointStructPersisted, Status> {
    let mut vectors: Vec<(String, Vector)> = Vec::new();
    // As the server does, which wants to be told that there are none.
    let named = point.vectors.and_then(|vectors| vectors.vectors_options);
    let Some(VectorsOptions::Vectors(named)) = named else {
        return Err(Status::invalid_argument("Expected some vectors"));
    };
    for (name, vector) in named.vectors {
        let vector = match vector.vector.ok_or_else(|| Status::invalid_argument(name.clone()))? {
            vector::Vector::Dense(vector) => Vector::from(vector.data),
            vector::Vector::Sparse(vector) => sparse(vector).into(),
            other => return Err(Status::invalid_argument(format!("{other:?}"))),
        };
        vectors.push((name, vector));
    }
    let payload = point.payload.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    let point = PointStruct::new(id(point.id.unwrap()), Vectors::from(vectors), Value::Object(payload));
    Ok(point.into())
}

fn sparse(vector: api::SparseVector) -> SparseVector {
    SparseVector { indices: vector.indices, values: vector.values }
}

pub(super) fn near(input: Option<api::VectorInput>) -> Result<VectorInternal, Status> {
    match input.and_then(|input| input.variant) {
        Some(vector_input::Variant::Dense(vector)) => Ok(VectorInternal::Dense(vector.data)),
        Some(vector_input::Variant::Sparse(vector)) => Ok(VectorInternal::Sparse(sparse(vector))),
        other => Err(Status::unimplemented(format!("{other:?}"))),
    }
}

pub(super) fn vectors_back(vectors: Option<VectorStructInternal>) -> Option<api::VectorsOutput> {
    let VectorStructInternal::Named(named) = vectors? else { return None };
    let back = |(name, vector)| {
        let vector = match vector {
            VectorInternal::Dense(data) => vector_output::Vector::Dense(api::DenseVector { data }),
            VectorInternal::Sparse(SparseVector { indices, values }) => {
                vector_output::Vector::Sparse(api::SparseVector { values, indices })
            }
            VectorInternal::MultiDense(_) => return None,
        };
        Some((name, api::VectorOutput { vector: Some(vector), ..api::VectorOutput::default() }))
    };
    let vectors = named.into_iter().filter_map(back).collect();
    let named = vectors_output::VectorsOptions::Vectors(api::NamedVectorsOutput { vectors });
    Some(api::VectorsOutput { vectors_options: Some(named) })
}

pub(super) fn payload_back(payload: Option<Payload>) -> HashMap<String, api::Value> {
    payload.into_iter().flat_map(|payload| payload.0).map(|(key, value)| (key, value.into())).collect()
}

pub(super) fn filter(filter: api::Filter) -> Result<Filter, Status> {
    let all = |conditions: Vec<api::Condition>| {
        if conditions.is_empty() {
            return Ok(None);
        }
        conditions.into_iter().map(condition).collect::<Result<Vec<_>, _>>().map(Some)
    };
    let api::Filter { should, must, must_not, min_should } = filter;
    assert!(min_should.is_none());
    Ok(Filter { should: all(should)?, min_should: None, must: all(must)?, must_not: all(must_not)? })
}

fn condition(condition: api::Condition) -> Result<Condition, Status> {
    Ok(match condition.condition_one_of.unwrap() {
        ConditionOneOf::Filter(nested) => Condition::Filter(filter(nested)?),
        ConditionOneOf::IsEmpty(empty) => Condition::IsEmpty(IsEmptyCondition::from(path(&empty.key)?)),
        ConditionOneOf::HasId(ids) => {
            Condition::HasId(ids.has_id.into_iter().map(id).collect::<HasIdCondition>())
        }
        ConditionOneOf::Field(condition) => Condition::Field(field(condition)?),
        other => return Err(Status::unimplemented(format!("{other:?}"))),
    })
}

fn field(condition: api::FieldCondition) -> Result<FieldCondition, Status> {
    let key = path(&condition.key)?;
    if let Some(api::Range { lt, gt, gte, lte }) = condition.range {
        let [lt, gt, gte, lte] = [lt, gt, gte, lte].map(|bound| bound.map(OrderedFloat));
        return Ok(FieldCondition::new_range(key, Range { lt, gt, gte, lte }));
    }
    if let Some(api::DatetimeRange { lt, gt, gte, lte }) = condition.datetime_range {
        let time = |time: api::Timestamp| {
            DateTimeWrapper(DateTime::from_timestamp(time.seconds, time.nanos.try_into().unwrap()).unwrap())
        };
        let [lt, gt, gte, lte] = [lt, gt, gte, lte].map(|bound| bound.map(time));
        return Ok(FieldCondition::new_datetime_range(key, Range { lt, gt, gte, lte }));
    }
    let matched = match condition.r#match.and_then(|matched| matched.match_value) {
        Some(MatchValue::Keywords(words)) => {
            Match::new_any(AnyVariants::Strings(words.strings.into_iter().collect()))
        }
        Some(MatchValue::Boolean(flag)) => Match::new_value(ValueVariants::Bool(flag)),
        other => return Err(Status::unimplemented(format!("{other:?}"))),
    };
    Ok(FieldCondition::new_match(key, matched))
}
