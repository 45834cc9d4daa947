//! The JSON files of a checkpoint, and what servers and clones deliver in their stead.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};

/// Parses `bytes` as JSON of the form `T`.
///
/// # Errors
/// `bad-model`, naming `file` and saying whether it is empty, cut off, damaged, or something else altogether.
pub(crate) fn parse<'a, T: Deserialize<'a>>(file: &str, bytes: &'a [u8]) -> Result<T> {
    check_not_a_stand_in(file, bytes)?;
    let bytes = without_mark(bytes);
    if bytes.trim_ascii().is_empty() {
        return Err(Error::bad_model(format!("{file} is empty; get it again")));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "is cut off; get it again",
            serde_json::error::Category::Data => {
                "is valid JSON, but not of the structure expected; it may belong to another kind of model"
            }
            _ => "can't be read as JSON; get it again",
        };
        Error::bad_model(format!("{file} {what} ({error})"))
    })
}

/// `bytes` without what Python writes and JSON doesn't have: `NaN` and infinities become null, which whoever reads such a key refuses.
pub(crate) fn without_constants(bytes: Vec<u8>) -> Vec<u8> {
    const CONSTANTS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut out = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1,
            b'N' | b'-' | b'I' if !in_string => {
                let rest = &bytes[at..];
                if let Some(constant) = CONSTANTS.iter().find(|word| rest.starts_with(word)) {
                    out.extend_from_slice(&bytes[copied..at]);
                    out.extend_from_slice(b"null");
                    at += constant.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return bytes;
    }
    out.extend_from_slice(&bytes[copied..]);
    out
}

/// The bytes after a byte order mark, which JSON must not have but files do.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Answers of servers that have an error to tell are no longer. Bytes.
const LONGEST_ANSWER: usize = 4096;

/// Fails if a file that begins like `start` is a web page, a server's error or a placeholder.
///
/// # Errors
/// `bad-model`, naming `file` and saying what to do.
pub(crate) fn check_not_a_stand_in(file: &str, start: &[u8]) -> Result<()> {
    let text = start.trim_ascii_start();
    if text.starts_with(b"<") {
        return Err(Error::bad_model(format!(
            "{file} looks like a web page, not the file itself; check the address, and whether the server asks for a sign-in"
        )));
    }
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "error")]
        _error: IgnoredAny,
    }
    let json = without_mark(text);
    // An object: serde takes a list of one for the structure as well.
    if json.starts_with(b"{")
        && json.len() <= LONGEST_ANSWER
        && serde_json::from_slice::<Answer>(json).is_ok()
    {
        return Err(Error::bad_model(format!(
            "{file} is an error that a server answered with, not the file itself: {}",
            String::from_utf8_lossy(text).trim_end()
        )));
    }
    if text.starts_with(b"version ") {
        return Err(Error::bad_model(format!(
            "{file} is a Git LFS pointer, not the file itself; run `git lfs pull` in the checkpoint's folder"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_error_is_no_file() {
        for answer in [
            r#"{"error":"Entry not found"}"#,
            "\n{\"error\": {\"code\": 404}, \"path\": \"/\"}",
        ] {
            let error =
                check_not_a_stand_in("preprocessor_config.json", answer.as_bytes()).unwrap_err();
            assert!(
                error
                    .message()
                    .contains("preprocessor_config.json is an error that a server answered with")
            );
        }
        for file in [
            "{}",
            "[1]",
            r#"{"size": {"height": 224}}"#,
            r#"{"errors": 0}"#,
        ] {
            assert!(check_not_a_stand_in("preprocessor_config.json", file.as_bytes()).is_ok());
        }
    }

    #[test]
    fn constants_of_python_become_null_outside_of_strings() {
        let given = br#"{"NaN": [NaN, -Infinity,Infinity], "a\"NaN": "Infinity", "b": -1}"#;
        let expected = r#"{"NaN": [null, null,null], "a\"NaN": "Infinity", "b": -1}"#;
        assert_eq!(without_constants(given.to_vec()), expected.as_bytes());
        let plain = br#"{"a": -1.5e-3, "b": "NaN"}"#.to_vec();
        assert_eq!(without_constants(plain.clone()), plain);
    }
}
