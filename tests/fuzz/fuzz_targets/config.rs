//! config.json and preprocessor_config.json.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siglip_web::checkpoint::format::FixedLabels;
use siglip_web::model::SiglipConfig;
use siglip_web::preprocess::Preprocessor;

fuzz_target!(|json: &[u8]| {
    if let Ok(config) = SiglipConfig::from_json(json) {
        for encoder in [&config.text.encoder, &config.vision.encoder] {
            assert!(encoder.hidden_size.is_multiple_of(encoder.num_attention_heads));
        }
        assert!(config.vision.num_patches() > 0);
    }
    let _ = FixedLabels::from_config(json);
    let _ = Preprocessor::from_json(json);
});
