//! What a browser has kept of a model, changed in any way: the load ends with the right weights, or, where even the checksum was made to fit, without a panic.
//!
//! Input: which entry (0 is the manifest), what is done to it, where (u32), and bytes.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use libfuzzer_sys::fuzz_target;
use siglip_web::checkpoint::{Memory, Store};
use siglip_web::{Backend, Classifier, LoadOptions, Picture, Result, device};
use twox_hash::XxHash3_128;

macro_rules! tiny {
    ($($file:literal),*) => {
        [$(($file, include_bytes!(concat!("../../fixtures/model/tiny/", $file)).as_slice())),*]
    };
}

const PICTURE: &[u8] = include_bytes!("../../fixtures/model/picture.png");

#[derive(Clone, Default)]
struct Kept {
    entries: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    manifest: Arc<Mutex<Option<String>>>,
}

impl Store for Kept {
    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.lock().unwrap().get(key).cloned()
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        self.entries
            .lock()
            .unwrap()
            .insert(key.into(), bytes.into());
    }

    async fn commit(&self, manifest: &str) {
        *self.manifest.lock().unwrap() = Some(manifest.into());
    }

    async fn manifest(&self) -> Option<String> {
        self.manifest.lock().unwrap().clone()
    }
}

/// The embedding of a picture by the small model in f32, loaded through `store`.
fn embedding(store: Kept) -> Result<Vec<u32>> {
    let source = Memory::new(tiny!(
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors"
    ));
    let (options, device) = (LoadOptions::exact(), device::open(Backend::Cpu)?);
    pollster::block_on(async {
        let mut classifier =
            Classifier::load_async(&source, store, &options, &device, &(), &mut |_| {}).await?;
        let embedding = classifier
            .embed_image_async(Picture::Encoded(PICTURE), &())
            .await?;
        Ok(embedding.iter().map(|value| value.to_bits()).collect())
    })
}

/// What a load keeps, and its answer.
static WHOLE: LazyLock<(BTreeMap<String, Vec<u8>>, String, Vec<u32>)> = LazyLock::new(|| {
    let store = Kept::default();
    let answer = embedding(store.clone()).expect("the fixture loads");
    let entries = store.entries.lock().unwrap().clone();
    let manifest = store.manifest.lock().unwrap().clone();
    (entries, manifest.expect("the load came to its end"), answer)
});

/// `bytes` cut at `at`, written over from there, or put in there.
fn changed(whole: &[u8], how: u8, at: usize, bytes: &[u8]) -> Vec<u8> {
    let at = at % (whole.len() + 1);
    let end = match how % 3 {
        0 => whole.len(),
        1 => whole.len().min(at + bytes.len()),
        _ => at,
    };
    [&whole[..at], bytes, &whole[end..]].concat()
}

fuzz_target!(|input: &[u8]| {
    let Some((&[which, how, a, b, c, d], bytes)) = input.split_first_chunk() else {
        return;
    };
    let (entries, manifest, answer) = &*WHOLE;
    let at = u32::from_le_bytes([a, b, c, d]) as usize;
    let store = Kept {
        entries: Arc::new(Mutex::new(entries.clone())),
        manifest: Arc::new(Mutex::new(Some(manifest.clone()))),
    };
    // The checksum fits again: what only a fault of our own could have written.
    let mut forged = false;
    match usize::from(which) % (entries.len() + 1) {
        0 => {
            let text = changed(manifest.as_bytes(), how, at, bytes);
            *store.manifest.lock().unwrap() = String::from_utf8(text).ok();
        }
        number => {
            let (key, whole) = entries.iter().nth(number - 1).expect("an entry");
            let mut damaged = changed(whole, how, at, bytes);
            if how >= 128 && damaged.len() > 16 {
                let end = damaged.len() - 16;
                let checksum = XxHash3_128::oneshot(&damaged[..end]).to_le_bytes();
                damaged[end..].copy_from_slice(&checksum);
                forged = damaged != *whole;
            }
            store.entries.lock().unwrap().insert(key.clone(), damaged);
        }
    }
    let got = embedding(store);
    if !forged {
        assert_eq!(&got.expect("what is damaged is read again"), answer);
    }
});
