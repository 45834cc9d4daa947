//! Memory that one product after the other uses.

/// Bytes of a line of the cache.
const LINE: usize = 64;
/// Words of it.
pub const LINE_WORDS: usize = LINE / size_of::<u32>();

/// `length` numbers of a memory that grows as needed, whatever they are. They begin with a line of the cache, so that no vector
/// lies in two.
pub fn room<T: Copy + Default>(memory: &mut Vec<T>, length: usize) -> &mut [T] {
    let enough = length + LINE / size_of::<T>();
    if memory.len() < enough {
        memory.resize(enough, T::default());
    }
    let start = start(memory);
    &mut memory[start..][..length]
}

/// Where the numbers begin that [`room`] gave of a memory.
pub fn start<T>(memory: &[T]) -> usize {
    memory.as_ptr().align_offset(LINE)
}
