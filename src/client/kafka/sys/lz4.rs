//! LZ4 frames, by the C library that librdkafka and RocksDB bring along.

use std::ptr;

use lz4_sys::{
    LZ4F_VERSION, LZ4F_createDecompressionContext, LZ4F_decompress, LZ4F_freeDecompressionContext, LZ4F_isError,
    LZ4F_resetDecompressionContext, LZ4FDecompressionContext,
};

/// Room that is made when nothing is known of the size.
const ROOM_MIN: usize = 64 << 10;

/// Unpacks one frame after another.
#[derive(Debug)]
pub(in crate::client::kafka) struct Lz4(LZ4FDecompressionContext);

impl Lz4 {
    /// None: there is no memory.
    pub(in crate::client::kafka) fn new() -> Option<Lz4> {
        let mut context = LZ4FDecompressionContext(ptr::null_mut());
        // SAFETY: the context is written only when the call succeeds, and freed once, when the new value is dropped.
        let result = unsafe { LZ4F_createDecompressionContext(&mut context, LZ4F_VERSION) };
        (!is_error(result) && !context.0.is_null()).then_some(Lz4(context))
    }

    /// Appends what the frame at the start of `packed` holds, at most until `out` has `length_max` bytes.
    ///
    /// # Errors
    /// Says what is wrong with the frame; `out` may have grown.
    pub(in crate::client::kafka) fn unpack(
        &mut self,
        packed: &[u8],
        out: &mut Vec<u8>,
        length_max: usize,
    ) -> Result<(), &'static str> {
        // SAFETY: the context is alive. What an earlier frame has left in it is forgotten.
        unsafe { LZ4F_resetDecompressionContext(self.0) };
        out.reserve(packed.len().saturating_mul(3).clamp(ROOM_MIN, length_max.max(ROOM_MIN)));
        let mut rest = packed;
        loop {
            if out.len() >= length_max {
                return Err("a compressed batch is larger than any may be");
            }
            if out.spare_capacity_mut().len() < ROOM_MIN {
                out.reserve(out.len().max(ROOM_MIN));
            }
            let spare = out.spare_capacity_mut();
            let (mut written, mut read) = (spare.len(), rest.len());
            // SAFETY: the context is alive; both pointers are good for the lengths that are passed, which the call lowers
            // to what it has written and read; options may be null.
            let result = unsafe {
                let into = spare.as_mut_ptr().cast::<u8>();
                LZ4F_decompress(self.0, into, &mut written, rest.as_ptr(), &mut read, ptr::null())
            };
            if is_error(result) {
                return Err("a compressed batch is no LZ4 frame");
            }
            // SAFETY: so many bytes of the spare capacity have been written.
            unsafe { out.set_len(out.len() + written) };
            rest = rest.get(read..).unwrap_or_default();
            if result == 0 {
                return Ok(());
            }
            if written == 0 && read == 0 {
                return Err("an LZ4 frame ends too early");
            }
        }
    }
}

impl Drop for Lz4 {
    fn drop(&mut self) {
        // SAFETY: the context is alive and nobody else has it.
        unsafe { LZ4F_freeDecompressionContext(self.0) };
    }
}

fn is_error(result: usize) -> bool {
    // SAFETY: no precondition.
    unsafe { LZ4F_isError(result) != 0 }
}
