//! A `tokenizer.json` of any form, run by the `tokenizers` crate. Natively it is a dependency; browsers have it in a module of its own
//! (`module/`), which an opener fetches ([`set_opener`]).

use serde_json::Value;

use super::{AnyPipeline, build};
use crate::error::Result;

#[cfg(target_family = "wasm")]
pub(crate) use browser::{Opened, set_opener};
#[cfg(target_family = "wasm")]
pub(super) use browser::{open, open_async};
#[cfg(not(target_family = "wasm"))]
pub(super) use native::{open, open_async};

/// What the crate says of a file that it can't read, with the names of the steps, which it doesn't say.
fn unreadable(steps: &Value, error: &str) -> crate::Error {
    let keys = [
        ("normalizer", "normalizers"),
        ("pre_tokenizer", "pretokenizers"),
    ];
    let steps = keys
        .into_iter()
        .flat_map(|(name, key)| build::flat(name, key, &steps[name]).unwrap_or_default());
    let kinds: Vec<_> = steps.filter_map(|step| step["type"].as_str()).collect();
    build::damaged(format!("{error} (its steps are {})", kinds.join(", ")))
}

#[cfg(not(target_family = "wasm"))]
mod native {
    use super::super::Pipeline;
    use super::super::library::Library;
    use super::{AnyPipeline, Result, Value, build, unreadable};
    use crate::json;

    /// The pipeline of `tokenizer_json`, with `steps` before its model.
    pub fn open(tokenizer_json: &[u8], steps: &Value) -> Result<AnyPipeline> {
        let json = json::without_mark(tokenizer_json);
        let library = guarded(|| Library::new(json, &steps.to_string()));
        Ok(Box::new(
            library.map_err(|error| unreadable(steps, &error))?,
        ))
    }

    pub async fn open_async(tokenizer_json: &[u8], steps: &Value) -> Result<AnyPipeline> {
        open(tokenizer_json, steps)
    }

    impl Pipeline for Library {
        fn ids(&self, text: &str) -> Result<Vec<u32>> {
            guarded(|| self.ids(text)).map_err(build::damaged)
        }
    }

    /// Runs the crate, which trusts its files and panics over some that are damaged.
    fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        result.unwrap_or_else(|_| Err("the tokenizers crate panicked over it".into()))
    }
}

#[cfg(target_family = "wasm")]
mod browser {
    use std::cell::RefCell;
    use std::pin::Pin;
    use std::rc::Rc;

    use super::super::Pipeline;
    use super::super::files::TOKENIZER_JSON;
    use super::{AnyPipeline, Result, Value, build, unreadable};
    use crate::error::Error;
    use crate::json;

    /// A pipeline that the module has opened: texts to ids, or what it says is wrong.
    pub type Opened = Box<dyn Fn(&str) -> Result<Vec<u32>, String>>;
    /// What opening came to: outside, whether the module could be started; inside, what it says of the file.
    type Opening = Pin<Box<dyn Future<Output = Result<Result<Opened, String>>>>>;
    /// Opens a `tokenizer.json` with the steps (JSON) that are to be done before its model.
    type Opener = Rc<dyn Fn(&[u8], String) -> Opening>;

    thread_local! {
        static OPENER: RefCell<Option<Opener>> = const { RefCell::new(None) };
    }

    /// Has this thread's files opened by `opener`.
    pub fn set_opener(opener: impl Fn(&[u8], String) -> Opening + 'static) {
        OPENER.set(Some(Rc::new(opener)));
    }

    /// Without waiting there is no module.
    pub fn open(_: &[u8], _: &Value) -> Result<AnyPipeline> {
        Err(Error::unsupported(format!(
            "{TOKENIZER_JSON} has another form than those of SigLIP's own tokenizers, and the module that reads any form isn't loaded"
        )))
    }

    /// The pipeline of `tokenizer_json`, with `steps` before its model.
    pub async fn open_async(tokenizer_json: &[u8], steps: &Value) -> Result<AnyPipeline> {
        let Some(opener) = OPENER.with_borrow(Clone::clone) else {
            return open(tokenizer_json, steps);
        };
        let json = json::without_mark(tokenizer_json);
        let opened = opener(json, steps.to_string()).await?;
        Ok(Box::new(Foreign(
            opened.map_err(|error| unreadable(steps, &error))?,
        )))
    }

    struct Foreign(Opened);

    impl Pipeline for Foreign {
        fn ids(&self, text: &str) -> Result<Vec<u32>> {
            self.0(text).map_err(build::damaged)
        }
    }
}
