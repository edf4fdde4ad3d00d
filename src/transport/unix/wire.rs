//! A connection's bytes, with deadlines on them, and without the answers that hyper would write
//! by itself: those have no body, and ours say what to change.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

use super::progress::{Phase, Progress};
use super::settings::HttpLimits;

/// A stream of bytes to a peer.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether the peer, which sends nothing more, may still read.
    fn is_half_open(&self) -> bool;
}

impl Socket for UnixStream {
    fn is_half_open(&self) -> bool {
        // A peer that has closed is a hang-up; one that has shut down its writing is not.
        let mut fds = [PollFd::new(self, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&now)) {
            Ok(_) => fds.iter().all(|fd| !fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)),
            Err(_) => false,
        }
    }
}

impl Socket for TcpStream {
    /// It can't be known: most peers that send nothing more are gone.
    fn is_half_open(&self) -> bool {
        false
    }
}

/// Why a connection was ended by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    HeaderTime,
    IdleTime,
    WriteTime,
    /// hyper would have answered with this status.
    Status(u16),
}

/// Times from [`HttpLimits`].
#[derive(Debug, Clone, Copy)]
struct Times {
    header: Duration,
    idle: Duration,
    write: Duration,
}

pub(super) struct Wire<S> {
    socket: S,
    progress: Arc<Progress>,
    times: Times,
    /// Fires at the present deadline or before it; then it is set anew.
    timer: Pin<Box<Sleep>>,
    verdict: Option<Verdict>,
    /// The peer will send nothing more, but waits for its answer.
    is_half_closed: bool,
}

impl<S: Socket> Wire<S> {
    pub fn new(socket: S, progress: Arc<Progress>, limits: &HttpLimits) -> Self {
        let times = Times {
            header: limits.header_time_max,
            idle: limits.idle_time_max,
            write: limits.write_time_max,
        };
        let timer = Box::pin(tokio::time::sleep(times.idle));
        Self { socket, progress, times, timer, verdict: None, is_half_closed: false }
    }

    /// The socket, and why its connection ended, if that was our doing.
    pub fn into_parts(self) -> (S, Option<Verdict>) {
        (self.socket, self.verdict)
    }

    /// Ready with an error if the present phase has taken too long; else sees to it that the task
    /// is woken when it has.
    fn poll_deadline<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let (since, time, verdict) = match self.progress.phase() {
            Phase::Idle { since, .. } => (since, self.times.idle, Verdict::IdleTime),
            Phase::Head(since) => (since, self.times.header, Verdict::HeaderTime),
            Phase::Answer { since, .. } => (since, self.times.write, Verdict::WriteTime),
            Phase::Busy => return Poll::Pending,
        };
        let deadline = since + time;
        while Instant::now() < deadline {
            if self.timer.is_elapsed() || self.timer.deadline().into_std() > deadline {
                self.timer.as_mut().reset(deadline.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.verdict.get_or_insert(verdict);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// If hyper is about to answer a request that no handler has seen, the status that it chose.
    fn own_status(&self, bytes: &[u8]) -> Option<u16> {
        if !matches!(self.progress.phase(), Phase::Idle { .. } | Phase::Head(_)) {
            return None;
        }
        let status = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        let status: u16 = std::str::from_utf8(status).ok()?.parse().ok()?;
        (status >= 400).then_some(status)
    }
}

impl<S: Socket> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_between = matches!(self.progress.phase(), Phase::Idle { .. } | Phase::Head(_));
        if self.is_half_closed {
            return if is_between { Poll::Ready(Ok(())) } else { self.poll_deadline(cx) };
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.socket).poll_read(cx, buffer) {
            Poll::Pending => self.poll_deadline(cx),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                self.progress.has_read();
                Poll::Ready(Ok(()))
            }
            // The end. hyper takes it for a client that has left.
            Poll::Ready(Ok(())) if !is_between && self.socket.is_half_open() => {
                self.is_half_closed = true;
                self.poll_deadline(cx)
            }
            Poll::Ready(result) => Poll::Ready(result),
        }
    }
}

impl<S: Socket> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(status) = self.own_status(bytes) {
            self.verdict.get_or_insert(Verdict::Status(status));
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(&mut self.socket).poll_write(cx, bytes) {
            Poll::Pending => self.poll_deadline(cx),
            ready => ready,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(status) = slices.first().and_then(|first| self.own_status(first)) {
            self.verdict.get_or_insert(Verdict::Status(status));
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        match Pin::new(&mut self.socket).poll_write_vectored(cx, slices) {
            Poll::Pending => self.poll_deadline(cx),
            ready => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.socket).poll_flush(cx);
        if matches!(result, Poll::Ready(Ok(()))) && self.progress.has_written() {
            // hyper has asked for the next request already: nobody else would set the timer, or
            // say that the end of the stream is to be read now.
            let deadline = self.poll_deadline::<()>(cx);
            if deadline.is_ready() || self.is_half_closed {
                cx.waker().wake_by_ref();
            }
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
