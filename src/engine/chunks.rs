//! Where the unsent tail of a lane waits: chunks of a few sizes, pooled.
//!
//! Only a tail that the sink did not take is ever stored; an idle session holds
//! none. Freed chunks are kept up to `POOLED_MAX` of each size, so that a slow
//! reader costs no allocation for each tail, and a burst of them no memory for
//! ever.

/// The size of the smallest chunk, in bytes: what is read for a sink without room while much is held.
pub const SMALLEST: u64 = 4 * 1024;

/// Sizes of chunks, in bytes. The last is the largest scratch buffer's default.
const SIZES: [usize; 4] = [SMALLEST as usize, 16 * 1024, 64 * 1024, 256 * 1024];

/// Chunks kept of each size: at the most 5.3 MiB a reactor.
const POOLED_MAX: usize = 16;

/// A tail: bytes from `start` to `end` wait to be written.
#[derive(Debug)]
pub struct Tail {
    bytes: Box<[u8]>,
    start: u32,
    end: u32,
}

impl Tail {
    /// What waits.
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }

    /// Adds bytes behind what waits, if there is room for all of them.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let (start, end) = (self.end as usize, self.end as usize + bytes.len());
        let Some(room) = self.bytes.get_mut(start..end) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.end = end as u32;
        true
    }

    /// The first `n` of it were written.
    pub fn advance(&mut self, n: u32) {
        debug_assert!(self.start + n <= self.end);
        self.start += n;
    }

    /// Memory it occupies, in bytes.
    pub const fn footprint(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// A pool of chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    free: [Vec<Box<[u8]>>; SIZES.len()],
}

impl Chunks {
    /// Stores a copy of `bytes`.
    pub fn park(&mut self, bytes: &[u8]) -> Tail {
        let class = SIZES.iter().position(|size| bytes.len() <= *size);
        let mut chunk = class
            .and_then(|class| self.free[class].pop())
            .unwrap_or_else(|| {
                vec![0; class.map_or(bytes.len(), |class| SIZES[class])].into_boxed_slice()
            });
        chunk[..bytes.len()].copy_from_slice(bytes);
        Tail {
            bytes: chunk,
            start: 0,
            end: bytes.len() as u32,
        }
    }

    /// Takes a chunk back.
    pub fn recycle(&mut self, tail: Tail) {
        if let Some(class) = SIZES.iter().position(|size| tail.bytes.len() == *size)
            && self.free[class].len() < POOLED_MAX
        {
            self.free[class].push(tail.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_what_was_parked_less_what_was_written() {
        let mut chunks = Chunks::default();
        for len in [1, 16 * 1024, 16 * 1024 + 1, 256 * 1024, 1 << 20] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut tail = chunks.park(&bytes);
            tail.advance(len as u32 / 3);
            assert_eq!(tail.unsent(), &bytes[len / 3..]);
            chunks.recycle(tail);
        }
    }

    #[test]
    fn bytes_are_appended_while_there_is_room() {
        let mut chunks = Chunks::default();
        let mut tail = chunks.park(&[1; 10 * 1024]);
        tail.advance(1024);
        assert!(tail.append(&[2; 6 * 1024]));
        assert!(!tail.append(&[3]));
        assert_eq!(
            tail.unsent(),
            [vec![1; 9 * 1024], vec![2; 6 * 1024]].concat()
        );
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut chunks = Chunks::default();
        let tails: Vec<Tail> = (0..100).map(|_| chunks.park(&[0; 100])).collect();
        for tail in tails {
            chunks.recycle(tail);
        }
        assert_eq!(chunks.free[0].len(), POOLED_MAX);
    }
}
