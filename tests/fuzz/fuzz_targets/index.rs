//! model.safetensors.index.json: whatever it says, the names that come of it stay inside the folder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siglip_web::checkpoint::shard_names;

fuzz_target!(|json: &[u8]| {
    if let Ok(names) = shard_names(json, &[]) {
        for name in names {
            assert!(name.ends_with(".safetensors") && !name.contains(['/', '\\']));
        }
    }
});
