//! Snippets: the part of a text that says best why it was found, and the words of the question that stand in it.

use std::collections::HashSet;
use std::ops::Range;

/// Characters of a snippet unless the client says otherwise, and at most.
pub(crate) const DEFAULT_LENGTH: u32 = 240;
pub(crate) const MAX_LENGTH: u32 = 2_000;
/// Around a word that the question has, too.
const MARK: &str = "**";
/// Characters of a text that are looked at: a snippet must not cost more than the search.
const LOOKED_AT: usize = 20_000;

/// The words of a text at these places, each once, in lower case, as they come.
pub(crate) fn terms(text: &str, matches: &[Range<usize>]) -> Vec<String> {
    let mut seen = HashSet::new();
    let words = matches.iter().filter_map(|place| text.get(place.clone())).map(str::to_lowercase);
    words.filter(|word| seen.insert(word.clone())).collect()
}

/// What a snippet can be made of: more would cost more than the search.
pub(crate) fn looked_at(text: &str) -> &str {
    &text[..forward(text, 0, LOOKED_AT)]
}

/// The part of a text with the most different words of the question, about `length` characters of it, in whole words,
/// with each such word between `**`. Its beginning if it has none. `matches` are their places, in order.
pub(crate) fn snippet(text: &str, matches: &[Range<usize>], length: usize) -> String {
    let from = best_window(text, matches, length).map_or(0, |first| {
        // A few words before the first one, so that it can be understood.
        let start = matches[first].start;
        let lead = back(text, start, length / 6);
        let space = text[lead..start].char_indices().find(|(_, letter)| letter.is_whitespace());
        space.map_or(lead, |(place, letter)| lead + place + letter.len_utf8())
    });
    let from = if from < length / 6 { 0 } else { from };
    let to = forward(text, from, length);
    let to = if to == text.len() {
        to
    } else {
        text[from..to].rfind(char::is_whitespace).map_or(to, |space| from + space)
    };
    let mut snippet = String::with_capacity(to - from + 32);
    if from > 0 {
        snippet.push('…');
    }
    let mut written = from;
    for word in matches.iter().filter(|word| word.start >= from && word.end <= to) {
        push_flat(&mut snippet, &text[written..word.start]);
        for part in [MARK, &text[word.clone()], MARK] {
            snippet.push_str(part);
        }
        written = word.end;
    }
    push_flat(&mut snippet, &text[written..to]);
    if to < text.len() {
        snippet.push('…');
    }
    snippet
}

/// Line breaks and runs of spaces are one space in a snippet.
fn push_flat(snippet: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            space if space.is_whitespace() => {
                if !snippet.is_empty() && !snippet.ends_with(' ') {
                    snippet.push(' ');
                }
            }
            letter => snippet.push(letter),
        }
    }
}

/// The first word of the run that holds the most different words within so many bytes; of equal ones the first.
fn best_window(text: &str, matches: &[Range<usize>], length: usize) -> Option<usize> {
    let words: Vec<String> = matches.iter().map(|place| text[place.clone()].to_lowercase()).collect();
    let different = |first: usize| {
        let start = matches[first].start;
        let within =
            matches[first..].iter().zip(&words[first..]).take_while(|(place, _)| place.end - start <= length);
        within.map(|(_, word)| word).collect::<HashSet<_>>().len()
    };
    (0..matches.len()).max_by_key(|first| (different(*first), std::cmp::Reverse(*first)))
}

/// The place so many characters further on.
fn forward(text: &str, from: usize, characters: usize) -> usize {
    text[from..].char_indices().nth(characters).map_or(text.len(), |(place, _)| from + place)
}

/// The place so many characters before.
fn back(text: &str, from: usize, characters: usize) -> usize {
    text[..from].char_indices().rev().take(characters).last().map_or(from, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where whole words of the question stand, in any letter case.
    fn places(question: &str, text: &str) -> Vec<Range<usize>> {
        let known: Vec<String> = question.split(' ').map(str::to_lowercase).collect();
        let mut found = Vec::new();
        let mut rest = 0;
        while let Some(start) = text[rest..].find(char::is_alphanumeric).map(|place| rest + place) {
            rest = text[start..].find(|c: char| !c.is_alphanumeric()).map_or(text.len(), |len| start + len);
            if known.contains(&text[start..rest].to_lowercase()) {
                found.push(start..rest);
            }
        }
        found
    }

    #[test]
    fn it_shows_where_the_question_is_answered() {
        let filler = "Nothing to see here, move along please. ".repeat(20);
        let text = format!("{filler}The signature check is skipped for compressed images. {filler}");
        let matches = places("Signature check skipped compressed images", &text);
        let found = snippet(&text, &matches, 100);
        assert!(found.starts_with('…') && found.ends_with('…'), "{found}");
        let marked = "The **signature** **check** is **skipped** for **compressed** **images**.";
        assert!(found.contains(marked), "{found}");
        assert_eq!(terms(&text, &matches), ["signature", "check", "skipped", "compressed", "images"]);
        assert_eq!(snippet("Short\n\n  and flat", &[], 100), "Short and flat");
        assert_eq!(snippet(&filler, &[], 30), "Nothing to see here, move…");
        assert_eq!(snippet("", &[], 30), "");
    }

    proptest! {
        #[test]
        fn it_is_a_part_of_the_text_and_not_too_long(text in "(\\PC|\\s|ab|cd){0,300}", length in 1_usize..200) {
            let found = snippet(&text, &places("ab cd", &text), length);
            let bare = found.replace(MARK, "");
            prop_assert!(bare.chars().count() <= length + 2, "{found:?}");
            let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let part = flat(bare.trim_matches('…'));
            prop_assert!(flat(&text.replace(MARK, "")).contains(&part) || text.contains('…'), "{found:?}");
        }
    }
}
