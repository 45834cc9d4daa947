//! What `siglip_web::web` gives to JavaScript, as a module.

#[cfg(target_family = "wasm")]
pub use siglip_web::web::*;
