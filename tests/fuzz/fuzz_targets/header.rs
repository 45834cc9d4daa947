//! The header of a safetensors file, and what a converted one says of itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siglip_web::checkpoint::FileHeader;
use siglip_web::checkpoint::format::Packing;

fuzz_target!(|json: &[u8]| {
    let bytes = [&(json.len() as u64).to_le_bytes(), json].concat();
    if let Ok(header) = FileHeader::parse("model.safetensors", &bytes, None) {
        let mut end = header.data_start;
        for tensor in &header.tensors {
            assert_eq!(tensor.offset, end, "tensors leave no hole and don't overlap");
            end += tensor.bytes;
        }
        assert_eq!(end, header.file_size());
        let _ = Packing::from_metadata("model.safetensors", &header.metadata);
    }
});
