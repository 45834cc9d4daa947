//! One error for the whole crate: a stable code to branch on, and a message to show a person.

use std::fmt;

/// What went wrong, as a word that never changes between versions.
///
/// The same words are the `code` of a `SiglipError` in JavaScript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// Labels, templates or options that can't be used.
    BadInput,
    /// A picture that can't be decoded, or is too large to decode safely.
    BadImage,
    /// Checkpoint files that are missing, damaged or don't fit together.
    BadModel,
    /// A file that could not be fetched or read.
    Network,
    /// The caller asked to stop.
    Aborted,
    /// A valid request for something this build or device can't do.
    Unsupported,
    /// Memory of the device or of the page ran out.
    OutOfMemory,
    /// The GPU was taken away or computes wrongly.
    DeviceLost,
    /// The classifier was disposed of.
    Disposed,
}

impl Code {
    /// The word itself, for example `"bad-image"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::BadInput => "bad-input",
            Code::BadImage => "bad-image",
            Code::BadModel => "bad-model",
            Code::Network => "network",
            Code::Aborted => "aborted",
            Code::Unsupported => "unsupported",
            Code::OutOfMemory => "out-of-memory",
            Code::DeviceLost => "device-lost",
            Code::Disposed => "disposed",
        }
    }

    /// The code with this word, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }

    const ALL: [Self; 9] = [
        Self::BadInput,
        Self::BadImage,
        Self::BadModel,
        Self::Network,
        Self::Aborted,
        Self::Unsupported,
        Self::OutOfMemory,
        Self::DeviceLost,
        Self::Disposed,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A [`Code`] with a message that says what was wrong, with which file or label, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
    beyond_repair: bool,
}

impl Error {
    /// An error with `code`; `message` is shown to people as it is.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            beyond_repair: false,
        }
    }

    /// This error, of a picture's file of which a part is lost.
    pub(crate) fn beyond_repair(self) -> Self {
        Self {
            beyond_repair: true,
            ..self
        }
    }

    /// Whether a part of a picture's file is lost: it ends before the picture does, or is a damaged PNG or GIF. Another decoder may fill up what is
    /// missing, and should not be asked to.
    pub fn is_beyond_repair(&self) -> bool {
        self.beyond_repair
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The message, without the code.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Error {}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::new(Code::BadInput, message)
    }

    pub(crate) fn bad_image(message: impl Into<String>) -> Self {
        Self::new(Code::BadImage, message)
    }

    pub(crate) fn bad_model(message: impl Into<String>) -> Self {
        Self::new(Code::BadModel, message)
    }

    pub(crate) fn network(message: impl Into<String>) -> Self {
        Self::new(Code::Network, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::Unsupported, message)
    }

    pub(crate) fn out_of_memory(message: impl Into<String>) -> Self {
        Self::new(Code::OutOfMemory, message)
    }

    pub(crate) fn device_lost(message: impl Into<String>) -> Self {
        Self::new(Code::DeviceLost, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `www/lib/error.js`, so that both languages have the same words.
    const JAVASCRIPT: &str = include_str!("../www/lib/error.js");

    #[test]
    fn every_code_has_a_word_of_its_own_which_javascript_knows() {
        for code in Code::ALL {
            assert_eq!(Code::from_word(code.as_str()), Some(code));
        }
        assert_eq!(Code::from_word("Bad-Input"), None);
        let list = JAVASCRIPT.split_once("const CODES = [").unwrap().1;
        let list = list.split_once(']').unwrap().0;
        let words: Vec<&str> = list
            .split(',')
            .map(|word| word.trim().trim_matches('"'))
            .collect();
        assert_eq!(words, Code::ALL.map(Code::as_str));
    }
}
