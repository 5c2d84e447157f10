// SPDX-License-Identifier: GPL-2.0

//! Sequence files: what the lines of `/proc/mounts` are written to.
//!
//! C header: [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)

use crate::bindings;
use core::fmt;
use kernel::types::Opaque;

/// A sequence file that is being shown. Text that does not fit makes the kernel show it again
/// with a larger buffer, so writing never fails.
#[repr(transparent)]
pub struct SeqFile(Opaque<bindings::seq_file>);

impl SeqFile {
    /// # Safety
    ///
    /// `seq` is an open sequence file that only the caller uses during `'a`.
    pub(super) unsafe fn from_ptr<'a>(seq: *mut bindings::seq_file) -> &'a mut Self {
        // SAFETY: `Self` is transparent over it.
        unsafe { &mut *seq.cast() }
    }
}

impl SeqFile {
    /// Writes the value of an option, with what has a meaning in `/proc/mounts` as octal numbers.
    pub fn write_escaped(&mut self, value: &[u8]) -> fmt::Result {
        for byte in value {
            match byte {
                b',' | b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                    fmt::Write::write_fmt(self, format_args!("\\{byte:03o}"))?
                }
                // SAFETY: The file is ours; one byte is read.
                _ => unsafe {
                    _ = bindings::seq_write(self.0.get(), core::ptr::from_ref(byte).cast(), 1)
                },
            }
        }
        Ok(())
    }
}

impl fmt::Write for SeqFile {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: The file is ours; the text is read only.
        unsafe { bindings::seq_write(self.0.get(), text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}
