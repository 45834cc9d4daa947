//! Weights laid out as the products read them, once, where every call would else do it again.

use super::parallel::{for_parts, for_threads};

/// Words of a line of the cache. Panels begin with one, so that no vector lies in two.
const LINE: usize = 16;

/// A weight's panels, each in memory of its own: what the weight's rows were in can then take those of the next weight, whose size is another.
#[derive(Debug)]
pub struct LaidOut(Vec<Panel>);

#[derive(Clone, Debug, Default)]
struct Panel {
    words: Vec<u32>,
    start: usize,
}

impl LaidOut {
    /// So many panels of so many words, which `lay` fills with a thread's memory; what it leaves is zero.
    pub fn new<S: Send>(
        count: usize,
        size: usize,
        memory: impl FnMut() -> S,
        lay: impl Fn(&mut S, usize, &mut [u32]) + Sync,
    ) -> Self {
        let mut panels = vec![Panel::default(); count];
        for_parts(
            &mut panels,
            1,
            &mut for_threads(memory),
            |memory, i, part| {
                for panel in part {
                    panel.words = vec![0; size + LINE - 1];
                    panel.start = panel.words.as_ptr().align_offset(LINE * size_of::<u32>());
                    lay(memory, i, &mut panel.words[panel.start..][..size]);
                }
            },
        );
        Self(panels)
    }

    /// One of the panels, perhaps with words behind it.
    pub fn panel(&self, i: usize) -> &[u32] {
        let Panel { words, start } = &self.0[i];
        &words[*start..]
    }
}
