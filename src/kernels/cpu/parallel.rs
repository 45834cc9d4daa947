//! Work that threads share.
//!
//! Natively they are rayon's. In the browser there are some only in the module that is built with the target feature `atomics`,
//! whose memory web workers can share; elsewhere everything happens on the calling thread. Which thread does what changes no
//! result: each writes outputs of its own, summed in the same order.

use std::marker::PhantomData;
use std::sync::Mutex;
#[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
use std::sync::atomic::{AtomicUsize, Ordering};

use super::lanes::{Lanes, WIDTH, store};

/// One `new` for each thread: memory that it uses from one piece of work to the next.
pub fn for_threads<S>(new: impl FnMut() -> S) -> Vec<S> {
    std::iter::repeat_with(new).take(threads()).collect()
}

#[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
fn threads() -> usize {
    rayon::current_num_threads()
}

#[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
fn threads() -> usize {
    1
}

/// Calls `each` for all numbers below `count`, in no particular order, on as many threads as there are memories.
pub fn for_each<S: Send>(count: usize, memories: &mut [S], each: impl Fn(&mut S, usize) + Sync) {
    let (first, others) = memories.split_first_mut().expect("at least one thread");
    #[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
    if count > 1 && !others.is_empty() {
        let next = AtomicUsize::new(0);
        let work = |memory: &mut S| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    break;
                }
                each(memory, i);
            }
        };
        return rayon::in_place_scope(|scope| {
            for memory in others.iter_mut().take(count - 1) {
                scope.spawn(|_| work(memory));
            }
            work(first);
        });
    }
    let _ = others;
    (0..count).for_each(|i| each(first, i));
}

/// Calls `each` for all chunks of `values`, with their numbers.
pub fn for_chunks<T: Send>(values: &mut [T], size: usize, each: impl Fn(usize, &mut [T]) + Sync) {
    for_parts(values, size, &mut for_threads(|| ()), |(), i, chunk| {
        each(i, chunk)
    });
}

/// The same, with a thread's memory.
pub fn for_parts<T: Send, S: Send>(
    values: &mut [T],
    size: usize,
    memories: &mut [S],
    each: impl Fn(&mut S, usize, &mut [T]) + Sync,
) {
    let count = values.len().div_ceil(size);
    let parts = Mutex::new(values.chunks_mut(size).enumerate());
    for_each(count, memories, |memory, _| {
        let next = parts.lock().expect("iterators don't panic").next();
        if let Some((i, part)) = next {
            each(memory, i, part);
        }
    });
}

/// Rows that threads write to, each to columns of its own.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    values: *mut f32,
    length: usize,
    /// From a row to the next.
    stride: usize,
    lives: PhantomData<&'a mut [f32]>,
}

// SAFETY: whoever writes promises that nobody else touches the same numbers.
#[allow(unsafe_code)]
unsafe impl Send for Target<'_> {}
#[allow(unsafe_code)]
unsafe impl Sync for Target<'_> {}

impl<'a> Target<'a> {
    /// From the first number of the first row on.
    pub fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self {
            values: values.as_mut_ptr(),
            length: values.len(),
            stride,
            lives: PhantomData,
        }
    }

    /// The rows and columns from these on.
    #[allow(unsafe_code)]
    pub fn from(self, row: usize, column: usize) -> Self {
        let at = (row * self.stride + column).min(self.length);
        Self {
            // SAFETY: within the values.
            values: unsafe { self.values.add(at) },
            length: self.length - at,
            ..self
        }
    }

    /// Writes a vector.
    ///
    /// # Safety
    /// Nobody else may touch these numbers meanwhile.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub unsafe fn store(self, row: usize, column: usize, lanes: Lanes) {
        let at = row * self.stride + column;
        assert!(at + WIDTH <= self.length);
        // SAFETY: within the values, as was just checked; that nobody else has them was promised.
        let four = unsafe { std::slice::from_raw_parts_mut(self.values.add(at), WIDTH) };
        store(four, 0, lanes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_and_chunk_comes_once() {
        for count in [0, 1, 2, 100] {
            let mut seen = for_threads(|| vec![0; count]);
            for_each(count, &mut seen, |seen, i| seen[i] += 1);
            for i in 0..count {
                assert_eq!(seen.iter().map(|seen| seen[i]).sum::<usize>(), 1);
            }
            let mut values = vec![0; count];
            for_chunks(&mut values, 7, |i, chunk| {
                chunk.iter_mut().for_each(|v| *v += i + 1)
            });
            assert!(values.iter().enumerate().all(|(i, v)| *v == i / 7 + 1));
        }
    }
}
