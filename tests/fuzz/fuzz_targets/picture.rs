//! Picture files of all formats.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siglip_web::preprocess::decode;

fuzz_target!(|file: &[u8]| match decode(file) {
    Ok(image) => assert_eq!(
        image.rgb().len() as u64,
        u64::from(image.width()) * u64::from(image.height()) * 3
    ),
    // The decoder of JPEG panics into this error natively, and would trap in the browser.
    Err(error) => assert!(!error.message().contains("its decoder failed"), "{error}"),
});
