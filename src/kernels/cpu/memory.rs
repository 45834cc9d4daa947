//! Memory that one product after the other uses.

/// `length` numbers of a memory that grows as needed, whatever they are. They begin with a line of the cache, so that no vector
/// lies in two.
pub fn room<T: Copy + Default>(memory: &mut Vec<T>, length: usize) -> &mut [T] {
    const LINE: usize = 64;
    let enough = length + LINE / size_of::<T>();
    if memory.len() < enough {
        memory.resize(enough, T::default());
    }
    let start = memory.as_ptr().align_offset(LINE);
    &mut memory[start..][..length]
}
