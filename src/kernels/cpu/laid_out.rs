//! Weights laid out as the products read them, once, where every call would else do it again.

use super::memory::{room, start};
use super::parallel::{for_parts, for_threads};

/// A weight's panels, each in memory of its own: what the weight's rows were in can then take those of the next weight, whose size is another.
#[derive(Debug)]
pub struct LaidOut {
    panels: Vec<Vec<u32>>,
    /// Of the weight.
    pub rows: usize,
}

impl LaidOut {
    /// So many panels of so many words, which `lay` fills with a thread's memory; what it leaves is zero.
    pub fn new<S: Send>(
        rows: usize,
        count: usize,
        size: usize,
        memory: impl FnMut() -> S,
        lay: impl Fn(&mut S, usize, &mut [u32]) + Sync,
    ) -> Self {
        let mut panels = vec![Vec::new(); count];
        let mut threads = for_threads(memory);
        for_parts(&mut panels, 1, &mut threads, |memory, i, panels| {
            for panel in panels {
                lay(memory, i, room(panel, size));
            }
        });
        Self { panels, rows }
    }

    /// One of the panels, perhaps with words behind it.
    pub fn panel(&self, i: usize) -> &[u32] {
        let panel = &self.panels[i];
        &panel[start(panel)..]
    }
}
