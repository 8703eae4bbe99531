//! The document's tokens, counted before anything parses them: the parser recurses with the brackets and its time
//! grows with the tokens, so both are bounded here, in one pass over the bytes.

use crate::config::Limits;
use crate::error::{Error, Result};

/// Brackets of any kind inside one another at most: what the library's parser takes.
const MAX_NESTING: usize = 64;

/// Refuses a document of too many tokens or with too many brackets inside one another.
pub(super) fn check_tokens(document: &str, limits: &Limits) -> Result<()> {
    let bytes = document.as_bytes();
    let (mut at, mut tokens, mut nesting) = (0, 0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        let end = match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' | 0xEF | 0xBB | 0xBF => {
                at += 1;
                continue;
            }
            b'#' => {
                at = skip(bytes, at, |byte| !matches!(byte, b'\n' | b'\r'));
                continue;
            }
            b'"' => end_of_string(bytes, at),
            b'.' if bytes[at..].starts_with(b"...") => at + 3,
            _ if is_word(byte) => skip(bytes, at, is_word),
            _ => at + 1,
        };
        match byte {
            b'{' | b'[' | b'(' => nesting += 1,
            b'}' | b']' | b')' => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        tokens += 1;
        if tokens > limits.max_tokens {
            let text = format!("the document has more than {} tokens", limits.max_tokens);
            return Err(Error::over_limit("max_tokens", text));
        }
        if nesting > MAX_NESTING {
            let text = format!("the document has brackets inside one another more than {MAX_NESTING} deep");
            return Err(Error::over_limit("nesting", text));
        }
        at = end;
    }
    Ok(())
}

/// Names and numbers.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+')
}

fn skip(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    bytes[from..].iter().position(|byte| !wanted(*byte)).map_or(bytes.len(), |length| from + length)
}

/// Where the string that begins here ends; at the document's end if it never does.
fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let block = bytes[from..].starts_with(br#"""""#);
    let quote: &[u8] = if block { br#"""""# } else { b"\"" };
    let mut at = from + quote.len();
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(quote) {
            return at + quote.len();
        }
        if !block && matches!(rest[0], b'\n' | b'\r') {
            return at; // not closed on its line: the parser says so
        }
        let escape = if block { rest.starts_with(br#"\""""#) } else { rest[0] == b'\\' };
        at += match (escape, block) {
            (true, true) => 4,
            (true, false) => 2,
            (false, _) => 1,
        };
    }
    bytes.len()
}
