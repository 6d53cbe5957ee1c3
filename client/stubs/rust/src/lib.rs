//! Reaches the background daemon of a compiler cache, or any service that
//! zcbroker looks after: through the broker where the environment asks for it,
//! else directly. What the caller gets is its own connected socket; no byte of
//! its traffic passes the broker.
//!
//! | order | when                                  | connection                   |
//! |-------|---------------------------------------|------------------------------|
//! | 1     | `RUNNING_PROCESS_DISABLE` is `1`      | direct                       |
//! | 2     | `RUNNING_PROCESS_FAKE_BACKEND` is set | there, else direct           |
//! | 3     | `ZCCACHE_BROKER_CONNECT` is `1`       | where the broker says, else direct |
//! | 4     | otherwise                             | direct                       |
//!
//! Row 3 reads the route info that the broker keeps in the runtime directory,
//! which takes no broker; where that leads nowhere, the broker is asked over
//! gRPC. `ZCBROKER_STRICT=1` turns the fallbacks of rows 2 and 3 into errors.
//!
//! ```no_run
//! let options = zcbroker::Options::new("zccache", "1.11.22");
//! let connected = zcbroker::blocking::connect("/run/user/1000/zccache/daemon.sock", &options)?;
//! println!("{:?} at {}", connected.lane, connected.endpoint.display());
//! # Ok::<(), zcbroker::ConnectError>(())
//! ```
//!
//! The functions of the crate's root are asynchronous and need a tokio runtime
//! with time and I/O; those of [`blocking`] need none.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod blocking;
mod connect;
mod error;
mod negotiate;
mod private_dir;
mod route;
mod runtime_dir;
mod socket;
mod world;

/// The protocol's messages and clients, as generated; documented in
/// `proto/zcbroker/v1`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    tonic::include_proto!("zcbroker.v1");
}

#[allow(dead_code, clippy::all)]
mod framed {
    tonic::include_proto!("running_process.broker.v1");
}

pub use connect::{connect, Connected, Lane, Options, Route, RouteSource};
pub use error::{BrokerError, ConnectError, FallbackReason, Refusal};
pub use negotiate::{admin_client, broker_client, negotiate, Channel};
pub use route::{decode_route_info, named_route, NamedRoute};
pub use runtime_dir::runtime_dir;
pub use world::own_world;
