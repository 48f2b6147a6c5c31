//! Makes the Workload API answer the gRPC libraries of other languages.
//!
//! On a unix socket, gRPC's C core (Python, C++, Ruby, PHP) sends the percent-encoded path of the
//! socket as `:authority`, and grpc-java the plain path. Neither is a valid authority, and our
//! HTTP/2 library resets such a request before anybody sees it. Nothing is decided by the authority
//! on a unix socket, so what is invalid in it is overwritten on the way in: byte for byte, so that
//! frames and compression tables stay what they are.
//!
//! Sources: grpc/grpc#38142 and hyperium/h2#487 for the case, RFC 9113 §4 to §6 for the frames, and
//! RFC 7541 §5 and §6 for the header blocks.
//!
//! Nothing is kept but a position in the stream, so nothing that is sent makes it grow. Whatever
//! breaks the rules is passed on as it is: the HTTP/2 library knows how to refuse it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

mod header_block;

use header_block::HeaderBlock;

/// What a client sends first. Source: RFC 9113 §3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;

/// A frame's length, type, flags and stream.
const FRAME_HEADER_BYTES: usize = 9;

/// What the priority flag adds to a frame: a stream and a weight.
const PRIORITY_BYTES: u32 = 5;

/// A connection whose requests have valid authorities.
#[derive(Debug)]
pub(super) struct Repaired<S> {
    inner: S,
    repair: Repair,
}

impl<S> Repaired<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, repair: Repair::default() }
    }
}

/// A position in what a client sends.
#[derive(Debug)]
pub(super) struct Repair {
    place: Place,
    /// Where the current or the last header block was left.
    block: HeaderBlock,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// So many bytes of the preface have come.
    Preface(usize),
    /// So many bytes of a frame's header have come, and this is what they were.
    FrameHeader(usize, [u8; FRAME_HEADER_BYTES]),
    /// The length of a frame's padding comes next.
    PadLength { left: u32, priority: bool },
    /// So many bytes of priority come next, then the header block.
    Priority { skip: u32, block: u32, padding: u32 },
    /// So many bytes of a header block come next.
    Block { left: u32, padding: u32 },
    /// So many bytes come that are none of our business.
    Skip(u32),
    /// This is not HTTP/2 as we know it.
    PassOn,
}

impl Default for Repair {
    fn default() -> Self {
        Self { place: Place::Preface(0), block: HeaderBlock::default() }
    }
}

impl Repair {
    /// Takes the next bytes of the stream, in whatever pieces they come, and overwrites what is
    /// invalid in them.
    pub(super) fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = bytes.get_mut(taken..).unwrap_or_default();
        }
    }

    /// Takes at least one of `bytes`, which are not empty, and says how many.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        let first = bytes[0];
        match &mut self.place {
            Place::Preface(came) => {
                self.place = match PREFACE.get(*came) {
                    Some(expected) if *expected != first => Place::PassOn,
                    _ if *came + 1 < PREFACE.len() => Place::Preface(*came + 1),
                    _ => Place::FrameHeader(0, [0; FRAME_HEADER_BYTES]),
                };
                1
            }
            Place::FrameHeader(came, header) => {
                let wanted = (FRAME_HEADER_BYTES - *came).min(bytes.len());
                header[*came..*came + wanted].copy_from_slice(&bytes[..wanted]);
                *came += wanted;
                if *came == FRAME_HEADER_BYTES {
                    let header = *header;
                    self.place = self.frame(header);
                }
                wanted
            }
            Place::PadLength { left, priority } => {
                // The length itself is a part of the frame.
                let (left, padding) = (*left - 1, u32::from(first));
                let priority = if *priority { PRIORITY_BYTES } else { 0 };
                self.place = match left.checked_sub(padding + priority) {
                    Some(block) => Place::before_block(priority, block, padding),
                    None => Place::PassOn,
                };
                1
            }
            Place::Priority { skip, block, padding } => {
                let taken = at_most(*skip, bytes);
                *skip -= taken;
                if *skip == 0 {
                    self.place = Place::before_block(0, *block, *padding);
                }
                taken as usize
            }
            Place::Block { left, padding } => {
                let taken = at_most(*left, bytes);
                let well_formed = self.block.pass(&mut bytes[..taken as usize]);
                *left -= taken;
                if !well_formed {
                    self.place = Place::PassOn;
                } else if *left == 0 {
                    self.place = Place::skip(*padding);
                }
                taken as usize
            }
            Place::Skip(left) => {
                let taken = at_most(*left, bytes);
                self.place = Place::skip(*left - taken);
                taken as usize
            }
            Place::PassOn => bytes.len(),
        }
    }

    /// What comes after a frame's header.
    fn frame(&mut self, header: [u8; FRAME_HEADER_BYTES]) -> Place {
        let [high, middle, low, kind, flags, ..] = header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        match kind {
            HEADERS => {
                self.block = HeaderBlock::default();
                let (padded, priority) = (flags & FLAG_PADDED != 0, flags & FLAG_PRIORITY != 0);
                if padded {
                    return if length == 0 {
                        Place::PassOn
                    } else {
                        Place::PadLength { left: length, priority }
                    };
                }
                let priority = if priority { PRIORITY_BYTES } else { 0 };
                match length.checked_sub(priority) {
                    Some(block) => Place::before_block(priority, block, 0),
                    None => Place::PassOn,
                }
            }
            CONTINUATION => Place::before_block(0, length, 0),
            _ => Place::skip(length),
        }
    }
}

impl Place {
    fn skip(left: u32) -> Self {
        match left {
            0 => Self::FrameHeader(0, [0; FRAME_HEADER_BYTES]),
            left => Self::Skip(left),
        }
    }

    fn before_block(priority: u32, block: u32, padding: u32) -> Self {
        match (priority, block) {
            (0, 0) => Self::skip(padding),
            (0, left) => Self::Block { left, padding },
            (skip, block) => Self::Priority { skip, block, padding },
        }
    }
}

/// As many of `bytes` as belong to the `left` that are awaited.
fn at_most(left: u32, bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).map_or(left, |length| length.min(left))
}

impl<S: AsyncRead + Unpin> AsyncRead for Repaired<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        if let Some(came) = buffer.filled_mut().get_mut(before..) {
            this.repair.pass(came);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Repaired<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

/// For a fuzzer: the repair of any bytes, whole and in two pieces, is the same, is as long as they
/// are, and is not changed by a second repair.
///
/// # Panics
///
/// When that is not so.
#[doc(hidden)]
pub fn fuzz_repair(bytes: &[u8]) {
    // The first byte says where the second piece begins.
    let (at, stream) = bytes.split_first().map_or((0, bytes), |(at, rest)| (*at, rest));
    let mut whole = stream.to_vec();
    Repair::default().pass(&mut whole);
    let mut pieces = stream.to_vec();
    let (first, second) = pieces.split_at_mut(usize::from(at).min(stream.len()));
    let mut repair = Repair::default();
    repair.pass(first);
    repair.pass(second);
    assert_eq!(whole, pieces, "the pieces in which it comes make a difference");
    assert_eq!(whole.len(), stream.len(), "the length has changed");
    Repair::default().pass(&mut pieces);
    assert_eq!(whole, pieces, "what is repaired was repaired again");
}

#[cfg(test)]
mod tests;
