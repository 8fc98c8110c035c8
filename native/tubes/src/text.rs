//! Text of strangers, made fit for a terminal.
//!
//! What stands in the store was written by domains that nobody has to trust. Printable ASCII is
//! shown as it is and everything else escaped, so a value can neither move the cursor nor look
//! like another one (a Cyrillic letter, a letter that turns the direction of writing).

/// Longest value shown whole; the store's own limit is 4,096 bytes.
const VALUE_MAX: usize = 160;

/// Marks where something was left out.
const CUT: &str = "..";

/// One line, whatever is in it.
pub fn escape(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// The same for a column: blanks are escaped too, since they end a column.
pub fn word(text: &str) -> String {
    escape(text).replace(' ', "\\x20")
}

fn visible(c: char) -> String {
    match c {
        '\\' => "\\\\".into(),
        ' '..='~' => c.into(),
        '\n' => "\\n".into(),
        '\t' => "\\t".into(),
        '\0'..='\x7f' => format!("\\x{:02x}", u32::from(c)),
        _ => format!("\\u{{{:x}}}", u32::from(c)),
    }
}

/// Bytes that may not be UTF-8.
pub fn escape_bytes(bytes: &[u8]) -> String {
    bytes
        .utf8_chunks()
        .flat_map(|chunk| {
            let text = escape(chunk.valid());
            let rest = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            std::iter::once(text).chain(rest).collect::<Vec<_>>()
        })
        .collect()
}

/// A value: escaped, and a long one cut, with its length told.
pub fn value(text: &str) -> String {
    let shown = escape(text);
    if shown.len() <= VALUE_MAX {
        shown
    } else {
        format!("{} ({} bytes)", cut(&shown, VALUE_MAX), text.len())
    }
}

/// At most `width` characters of an escaped text, which is ASCII.
pub fn cut(escaped: &str, width: usize) -> String {
    if escaped.len() <= width {
        escaped.to_owned()
    } else if width <= CUT.len() {
        CUT[..width].to_owned()
    } else {
        format!("{}{CUT}", &escaped[..width - CUT.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_printable_ascii() {
        let nasty = "a\x1b[2J\u{202e}\u{430}\r\n\t\x7f\\\0";
        assert_eq!(escape(nasty), r"a\x1b[2J\u{202e}\u{430}\x0d\n\t\x7f\\\x00");
        assert_eq!(word("two words"), r"two\x20words");
        assert_eq!(escape_bytes(b"a\xff\x1bb"), r"a\xff\x1bb");
    }

    #[test]
    fn long_values_are_cut_and_say_so() {
        let shown = value(&"x".repeat(4000));
        assert!(shown.ends_with("xx.. (4000 bytes)") && shown.len() < 200);
        assert_eq!(value("short"), "short");
        assert_eq!(cut("abcdef", 4), "ab..");
        assert_eq!(cut("abcdef", 1), ".");
        assert_eq!(cut("abc", 3), "abc");
    }
}
