//! The same for programs without an asynchronous runtime. Not to be called
//! from within one.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::proto::{NegotiateRequest, NegotiateResponse};
use crate::{BrokerError, ConnectError, Connected, Options};

/// As [`crate::connect`]; the socket is in blocking mode.
pub fn connect(
    direct_endpoint: impl AsRef<Path>,
    options: &Options,
) -> Result<Connected<UnixStream>, ConnectError> {
    let endpoint = direct_endpoint.as_ref();
    run(async {
        crate::connect(endpoint, options).await?.try_map(into_blocking).map_err(|source| {
            ConnectError::NoDaemon { endpoint: endpoint.to_owned(), source, fallback: None }
        })
    })
}

/// As [`crate::negotiate`].
pub fn negotiate(
    request: NegotiateRequest,
    deadline: Duration,
) -> Result<NegotiateResponse, BrokerError> {
    run(crate::negotiate(request, deadline))
}

fn into_blocking(stream: tokio::net::UnixStream) -> io::Result<UnixStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system has descriptors for a runtime")
        .block_on(work)
}
