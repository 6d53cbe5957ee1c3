use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{sleep, Instant};

use crate::private_dir::own_uid;

const MAX_PATH_BYTES: usize = 107;
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// An absolute path that fits a Unix socket's address.
pub(crate) fn is_endpoint(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    path.is_absolute() && bytes.len() <= MAX_PATH_BYTES && !bytes.contains(&0)
}

/// Tries once, and while the listener's queue is full again until `deadline`.
pub(crate) async fn dial(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                sleep(pause.min(left)).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            result => return result,
        }
    }
}

/// Whether the other end is this user's.
pub(crate) fn is_ours(stream: &UnixStream) -> bool {
    matches!(stream.peer_cred(), Ok(peer) if peer.uid() == own_uid())
}

/// The same, and that it is the process `pid`. 0 on either side, as across pid
/// namespaces, is not compared.
pub(crate) fn is_our_process(stream: &UnixStream, pid: u32) -> bool {
    is_ours(stream)
        && match stream.peer_cred().ok().and_then(|peer| peer.pid()) {
            None | Some(0) => true,
            Some(other) => pid == 0 || i64::from(other) == i64::from(pid),
        }
}
