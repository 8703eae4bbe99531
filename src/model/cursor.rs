//! Cursors: where a row stands in an order. The client gets the order's values and the row's id, signed, and can
//! neither read a cursor as a page number nor make one up. A page that begins at a cursor is found by comparing
//! values, so rows that come and go meanwhile neither repeat nor hide others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::entity::{ColumnType, OrderBy, Type};
use crate::store::db::rows::read_time;
use crate::store::db::sql::Bind;

/// Bytes of a cursor that a client may send. The longest text that can be ordered by has 20,000 characters, which
/// are 107 KB here.
const CURSOR_LIMIT: usize = 256 * 1024;
const MAC_LENGTH: usize = 16;
const FINGERPRINT_LENGTH: usize = 8;

/// A place in an order: the values of the order's columns (NULL as `None`) and the id.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// One per column of the order.
    pub values: Vec<Option<Bind>>,
    /// Settles ties.
    pub id: Uuid,
}

/// Signs and checks cursors.
#[derive(Clone)]
pub struct CursorKey(Hmac<Sha256>);

impl CursorKey {
    /// Derives the key from the server's secret.
    pub fn new(secret: &[u8]) -> Self {
        let key = Sha256::new().chain_update(b"evidence-gateway cursor\0").chain_update(secret).finalize();
        // HMAC takes a key of any length.
        Self(Hmac::new_from_slice(&key).unwrap_or_else(|_| unreachable!("HMAC takes any key")))
    }

    /// Makes the cursor of a row from the cells of its order and its id, as PostgreSQL sent them.
    pub fn encode<'a>(
        &self,
        fingerprint: &Fingerprint,
        cells: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> String {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&fingerprint.0);
        for cell in cells {
            let length = cell.map_or(u32::MAX, |cell| u32::try_from(cell.len()).unwrap_or(u32::MAX));
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(cell.unwrap_or_default());
        }
        self.seal(bytes)
    }

    /// Signs the content of a cursor, which must begin with what tells its kind from all others.
    pub(super) fn seal(&self, mut bytes: Vec<u8>) -> String {
        let mac = self.0.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac[..MAC_LENGTH]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The content of a cursor that this key has signed.
    pub(super) fn open(&self, text: &str) -> Option<Vec<u8>> {
        if text.len() > CURSOR_LIMIT {
            return None;
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let mac = bytes.split_off(bytes.len().checked_sub(MAC_LENGTH)?);
        self.0.clone().chain_update(&bytes).verify_truncated_left(&mac).ok()?;
        Some(bytes)
    }

    /// Reads a cursor that was made for this order. `field` is the argument to blame.
    pub fn decode(&self, field: &str, text: &str, ty: &Type, order: &[OrderBy]) -> Result<Cursor> {
        let wrong = || Error::bad_input(field, "is not a cursor that this list gave out in this order");
        let body = self.open(text).ok_or_else(wrong)?;
        let cells = body.strip_prefix(&Fingerprint::new(ty, order).0[..]).ok_or_else(wrong)?;
        read_cells(cells, ty, order).ok_or_else(wrong)
    }
}

fn read_cells(mut rest: &[u8], ty: &Type, order: &[OrderBy]) -> Option<Cursor> {
    let mut cell = || {
        let (length, tail) = rest.split_at_checked(4)?;
        let length = u32::from_be_bytes(length.try_into().ok()?);
        if length == u32::MAX {
            rest = tail;
            return Some(None);
        }
        let (cell, tail) = tail.split_at_checked(usize::try_from(length).ok()?)?;
        rest = tail;
        Some(Some(cell))
    };
    let mut values = Vec::with_capacity(order.len());
    for key in order {
        values.push(match cell()? {
            None => None,
            Some(bytes) => Some(read_value(ty.columns[key.column].ty, bytes)?),
        });
    }
    let id = Uuid::from_slice(cell()??).ok()?;
    rest.is_empty().then_some(Cursor { values, id })
}

fn read_value(ty: ColumnType, bytes: &[u8]) -> Option<Bind> {
    Some(match ty {
        ColumnType::Uuid => Bind::Uuid(Uuid::from_slice(bytes).ok()?),
        ColumnType::Text | ColumnType::Enum(_) => Bind::Text(String::from_utf8(bytes.to_vec()).ok()?),
        ColumnType::Int => Bind::Int(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        ColumnType::BigInt => Bind::Int(i64::from_be_bytes(bytes.try_into().ok()?)),
        ColumnType::Float => Bind::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
        ColumnType::Bool => Bind::Bool(bytes == [1]),
        ColumnType::Time => Bind::Time(read_time(bytes)?),
        ColumnType::Json | ColumnType::Texts => return None,
    })
}

/// What a cursor was made for: the type and the order. A cursor of another order would be a wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint([u8; FINGERPRINT_LENGTH]);

impl Fingerprint {
    /// The fingerprint of an order of a type's rows.
    pub fn new(ty: &Type, order: &[OrderBy]) -> Self {
        let mut hash = Sha256::new().chain_update(&ty.name);
        for key in order {
            let direction = if key.descending { " desc," } else { " asc," };
            hash = hash.chain_update(&ty.columns[key.column].name).chain_update(direction);
        }
        let mut start = [0; FINGERPRINT_LENGTH];
        start.copy_from_slice(&hash.finalize()[..FINGERPRINT_LENGTH]);
        Self(start)
    }
}
