use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::error::{BrokerError, ConnectError, FallbackReason};
use crate::negotiate::negotiate;
use crate::private_dir::PrivateDir;
use crate::proto::{NegotiateRequest, RouteInfo, StartPolicy, WireLane, World};
use crate::route::read_route_info;
use crate::runtime_dir;
use crate::socket::{dial, is_endpoint, is_our_process, is_ours};
use crate::world::{own_world, world_id};

/// What to connect to. Make one with [`Options::new`] and change what differs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The kind of daemon: 1 to 64 characters of a-z, 0-9 and '-'.
    pub service: String,
    /// The version the daemon must have, exactly.
    pub version: String,
    /// The wire lanes the caller can speak, the best first. Empty: it takes
    /// what there is.
    pub accepted_lanes: Vec<WireLane>,
    /// Who is asking, for people.
    pub client_name: String,
    /// At most 128 bytes.
    pub client_version: String,
    /// Whether the broker may start a daemon.
    pub start_policy: StartPolicy,
    /// `None`: [`own_world`].
    pub world: Option<World>,
    /// Of the whole call. A direct connection is tried once in any case.
    pub deadline: Duration,
}

impl Options {
    /// `version` of `service`, over any lane, within 12 seconds.
    pub fn new(service: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            version: version.into(),
            accepted_lanes: Vec::new(),
            client_name: "zcbroker-rust".to_owned(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            start_policy: StartPolicy::IfNeeded,
            world: None,
            deadline: Duration::from_secs(12),
        }
    }
}

/// To whom a connection leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The endpoint that the caller gave.
    Direct,
    /// The one that `RUNNING_PROCESS_FAKE_BACKEND` names.
    FakeBackend,
    /// The one that the broker named.
    Broker,
}

impl Lane {
    /// `direct`, `fake_backend` or `broker`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::FakeBackend => "fake_backend",
            Self::Broker => "broker",
        }
    }
}

/// How the broker named an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// By a file; no broker was asked.
    RouteInfo,
    /// In answer to a negotiation.
    Negotiation,
}

/// What the broker said of the daemon.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// Who said so.
    pub source: RouteSource,
    /// The version that runs.
    pub version: String,
    /// What the daemon understands, the best first.
    pub lanes: Vec<WireLane>,
    /// Who listens: process id, start time in clock ticks since boot, boot.
    pub pid: u32,
    /// See `pid`.
    pub start_time: u64,
    /// See `pid`.
    pub boot_id: String,
    /// A route of a higher generation replaces one of a lower.
    pub generation: u64,
}

/// A connection, and how it came about.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected<S> {
    /// Connected, and owned by the caller alone.
    pub stream: S,
    /// To whom it leads.
    pub lane: Lane,
    /// The socket's path.
    pub endpoint: PathBuf,
    /// Set with [`Lane::Broker`].
    pub route: Option<Route>,
    /// Why it is direct, where the environment asked for something else.
    pub fallback: Option<BrokerError>,
}

impl<S> Connected<S> {
    /// The first of `accepted` that the daemon understands. Without a route, or
    /// where its broker does not tell, the first of all.
    pub fn wire_lane(&self, accepted: &[WireLane]) -> Option<WireLane> {
        match &self.route {
            Some(route) => first_common(accepted, &route.lanes),
            None => accepted.first().copied(),
        }
    }

    pub(crate) fn try_map<T, E>(
        self,
        change: impl FnOnce(S) -> Result<T, E>,
    ) -> Result<Connected<T>, E> {
        Ok(Connected {
            stream: change(self.stream)?,
            lane: self.lane,
            endpoint: self.endpoint,
            route: self.route,
            fallback: self.fallback,
        })
    }
}

/// Connects by the table above. `direct_endpoint` is where the daemon listens
/// for clients without a broker. Reads the environment, so nobody may change
/// it meanwhile. Needs a tokio runtime.
pub async fn connect(
    direct_endpoint: impl AsRef<Path>,
    options: &Options,
) -> Result<Connected<UnixStream>, ConnectError> {
    let direct = direct_endpoint.as_ref();
    let deadline = Instant::now() + options.deadline;
    if is_one("RUNNING_PROCESS_DISABLE") {
        return dial_direct(direct, deadline, None).await;
    }
    let fake = env::var_os("RUNNING_PROCESS_FAKE_BACKEND").filter(|path| !path.is_empty());
    let connected = match fake {
        Some(path) => dial_fake_backend(path.into(), deadline).await,
        None if is_one("ZCCACHE_BROKER_CONNECT") => dial_broker(options, deadline).await,
        None => return dial_direct(direct, deadline, None).await,
    };
    match connected {
        Ok(connected) => Ok(connected),
        Err(why) if is_one("ZCBROKER_STRICT") => Err(ConnectError::Strict(why)),
        Err(why) => dial_direct(direct, deadline, Some(why)).await,
    }
}

fn is_one(name: &str) -> bool {
    matches!(env::var_os(name), Some(value) if value == "1")
}

async fn dial_direct(
    endpoint: &Path,
    deadline: Instant,
    fallback: Option<BrokerError>,
) -> Result<Connected<UnixStream>, ConnectError> {
    if !is_endpoint(endpoint) {
        return Err(ConnectError::InvalidEndpoint(endpoint.to_owned()));
    }
    match dial(endpoint, deadline).await {
        Ok(stream) => Ok(Connected {
            stream,
            lane: Lane::Direct,
            endpoint: endpoint.to_owned(),
            route: None,
            fallback,
        }),
        Err(source) => {
            Err(ConnectError::NoDaemon { endpoint: endpoint.to_owned(), source, fallback })
        }
    }
}

async fn dial_fake_backend(
    endpoint: PathBuf,
    deadline: Instant,
) -> Result<Connected<UnixStream>, BrokerError> {
    match dial_direct(&endpoint, deadline, None).await {
        Ok(connected) => Ok(Connected { lane: Lane::FakeBackend, ..connected }),
        Err(error) => {
            let message = format!("RUNNING_PROCESS_FAKE_BACKEND: {error}");
            eprintln!("zcbroker: {message}; connecting directly");
            Err(BrokerError::new(FallbackReason::FakeBackendDead, message))
        }
    }
}

/// The route info first; where it does not lead to a daemon, whatever the
/// reason, the broker is asked once.
async fn dial_broker(
    options: &Options,
    deadline: Instant,
) -> Result<Connected<UnixStream>, BrokerError> {
    let world = options.world.clone().unwrap_or_else(own_world);
    if let Ok(dir) = runtime_dir::open() {
        if let Some(connected) = dial_named(&dir, options, &world, deadline).await {
            return Ok(connected);
        }
        let other = dir.open_at("worlds").and_then(|worlds| worlds.open_at(&world_id(&world)));
        if let Ok(dir) = other {
            if let Some(connected) = dial_named(&dir, options, &world, deadline).await {
                return Ok(connected);
            }
        }
    }
    dial_negotiated(options, world, deadline).await
}

async fn dial_named(
    dir: &PrivateDir,
    options: &Options,
    world: &World,
    deadline: Instant,
) -> Option<Connected<UnixStream>> {
    let info = read_route_info(dir, &options.service, &options.version).ok()?;
    let lanes = known_lanes(info.lanes.iter().map(|lane| *lane as i32));
    if !is_of_world(&info, world) || !is_speakable(&options.accepted_lanes, &lanes) {
        return None;
    }
    let endpoint = PathBuf::from(info.endpoint);
    let stream = dial(&endpoint, deadline).await.ok()?;
    // An info outlives a backend whose broker was killed: what listens there
    // now may be another version's.
    if !is_our_process(&stream, info.pid) {
        return None;
    }
    let route = Route {
        source: RouteSource::RouteInfo,
        version: info.version,
        lanes,
        pid: info.pid,
        start_time: info.start_time,
        boot_id: info.boot_id,
        generation: info.generation,
    };
    Some(through_broker(stream, endpoint, route))
}

async fn dial_negotiated(
    options: &Options,
    world: World,
    deadline: Instant,
) -> Result<Connected<UnixStream>, BrokerError> {
    let request = NegotiateRequest {
        service: options.service.clone(),
        wanted_version: options.version.clone(),
        accepted_lanes: options.accepted_lanes.iter().map(|lane| (*lane).into()).collect(),
        client_name: options.client_name.clone(),
        client_version: options.client_version.clone(),
        start_policy: options.start_policy.into(),
        world: Some(world),
        ..Default::default()
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let route = negotiate(request, left).await?.route.unwrap_or_default();
    let endpoint = PathBuf::from(route.endpoint);
    let failed =
        |reason, what: &str| BrokerError::new(reason, format!("{}: {what}", endpoint.display()));
    let lanes = known_lanes(route.lanes);
    if !lanes.is_empty() && !is_speakable(&options.accepted_lanes, &lanes) {
        return Err(failed(FallbackReason::LaneUnsupported, "speaks no lane of ours"));
    }
    let stream = dial(&endpoint, deadline)
        .await
        .map_err(|error| failed(FallbackReason::RouteDead, &error.to_string()))?;
    if !is_ours(&stream) {
        return Err(failed(FallbackReason::RouteForeign, "belongs to another user"));
    }
    let route = Route {
        source: RouteSource::Negotiation,
        version: route.version,
        lanes,
        pid: route.pid,
        start_time: route.start_time,
        boot_id: route.boot_id,
        generation: route.generation,
    };
    Ok(through_broker(stream, endpoint, route))
}

fn through_broker(stream: UnixStream, endpoint: PathBuf, route: Route) -> Connected<UnixStream> {
    Connected { stream, lane: Lane::Broker, endpoint, route: Some(route), fallback: None }
}

fn known_lanes(numbers: impl IntoIterator<Item = i32>) -> Vec<WireLane> {
    numbers
        .into_iter()
        .filter_map(WireLane::from_i32)
        .filter(|lane| *lane != WireLane::Unspecified)
        .collect()
}

fn first_common(accepted: &[WireLane], spoken: &[WireLane]) -> Option<WireLane> {
    accepted.iter().copied().find(|lane| spoken.is_empty() || spoken.contains(lane))
}

fn is_speakable(accepted: &[WireLane], spoken: &[WireLane]) -> bool {
    accepted.is_empty() || accepted.iter().any(|lane| spoken.contains(lane))
}

/// A field that either side leaves empty is not compared.
fn is_of_world(info: &RouteInfo, world: &World) -> bool {
    let same = |theirs: &str, ours: &str| theirs.is_empty() || ours.is_empty() || theirs == ours;
    same(&info.mount_namespace, &world.mount_namespace)
        && same(&info.cache_root, &world.cache_root)
        && same(&info.daemon_namespace, &world.daemon_namespace)
}
