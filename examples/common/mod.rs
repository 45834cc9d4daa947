//! What the examples' command lines have in common.

// Each example uses a part of it.
#![allow(dead_code)]

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use siglip_web::{Backend, Code, Dtype, Error, Result};

/// For clap.
pub fn backend(word: &str) -> Result<Backend, String> {
    match word {
        "cpu" => Ok(Backend::Cpu),
        "wgpu" | "webgpu" => Ok(Backend::WebGpu),
        _ => Err("use cpu or wgpu".into()),
    }
}

/// For clap.
pub fn dtype(word: &str) -> Result<Dtype, String> {
    Dtype::from_word(word).ok_or_else(|| "use f32, f16, q8 or q4".into())
}

pub fn bad_input(message: impl Into<String>) -> Error {
    Error::new(Code::BadInput, message)
}

pub fn unreadable(code: Code, path: &Path, error: &io::Error) -> Error {
    Error::new(code, format!("{} can't be read: {error}", path.display()))
}

/// What is wrong with a file's contents, with its name.
pub fn named(path: &Path, error: &Error) -> Error {
    Error::new(
        error.code(),
        format!("{}: {}", path.display(), error.message()),
    )
}

/// A line on the standard output. Whoever reads it may have seen enough (`| head -1`): then the program ends, as others do.
pub fn print(line: impl std::fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Error::new(
            Code::Network,
            format!("the output can't be written: {error}"),
        )),
    }
}

/// The end of a program: an error is said, and it shows in the exit status.
pub fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody listens, the exit status must do.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
