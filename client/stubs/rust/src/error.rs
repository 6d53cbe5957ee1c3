use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::proto::RefusalDetail;

macro_rules! fallback_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a client that asked for a broker connected directly instead.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum FallbackReason {
            $($(#[$doc])* $variant,)*
        }

        impl FallbackReason {
            /// The name that zcbroker's own programs give it, for example
            /// `broker_mute`; never changes.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

fallback_reasons! {
    /// `RUNNING_PROCESS_FAKE_BACKEND` does not answer.
    FakeBackendDead = "fake_backend_dead",
    /// There is no broker socket, or no runtime directory.
    BrokerMissing = "broker_missing",
    /// There is a broker socket on which nobody listens.
    BrokerRefused = "broker_refused",
    /// The socket could not be used.
    BrokerUnreachable = "broker_unreachable",
    /// The socket's other end belongs to another user.
    BrokerForeign = "broker_foreign",
    /// The broker gave no sign of life within the contact budget.
    BrokerMute = "broker_mute",
    /// It is alive, but gave no answer within the deadline.
    BrokerSlow = "broker_slow",
    /// The connection broke before an answer.
    BrokerClosed = "broker_closed",
    /// The answer is not of the protocol.
    BrokerGarbage = "broker_garbage",
    /// An answer without a usable route, or of another version.
    BrokerWrongReply = "broker_wrong_reply",
    /// The broker said no; see [`BrokerError::refusal`].
    BrokerRefusal = "broker_refusal",
    /// The route's backend speaks none of the accepted wire lanes.
    LaneUnsupported = "lane_unsupported",
    /// The backend of the route does not accept.
    RouteDead = "route_dead",
    /// The backend of the route belongs to another user.
    RouteForeign = "route_foreign",
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broker's no, with its facts (`proto/zcbroker/v1/errors.proto`). Decide by
/// `reason` or `code`, never by the message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// Its name, for example `SERVICE_UNKNOWN`.
    pub reason: String,
    /// The status of the call.
    pub code: Code,
    /// For people.
    pub message: String,
    /// After what time a retry can help; `None` where none does.
    pub retry_after: Option<Duration>,
    /// Installed versions, evidence and the like.
    pub detail: RefusalDetail,
}

impl Refusal {
    /// The refusal in a status' details, where there is one.
    pub(crate) fn from_status(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info().filter(|info| info.domain == "zcbroker")?;
        let rich = tonic_types::Status::decode(status.details()).ok()?;
        let detail = rich
            .details
            .iter()
            .find(|any| any.type_url.ends_with("/zcbroker.v1.RefusalDetail"))
            .and_then(|any| RefusalDetail::decode(&*any.value).ok())
            .unwrap_or_default();
        Some(Self {
            reason: info.reason,
            code: status.code(),
            message: status.message().to_owned(),
            retry_after: status.get_details_retry_info().and_then(|retry| retry.retry_delay),
            detail,
        })
    }
}

/// A negotiation, or the way to the route it gave, failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BrokerError {
    /// The fallback it leads to.
    pub reason: FallbackReason,
    /// What happened, for people.
    pub message: String,
    /// Set with [`FallbackReason::BrokerRefusal`].
    pub refusal: Option<Box<Refusal>>,
}

impl BrokerError {
    pub(crate) fn new(reason: FallbackReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), refusal: None }
    }
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        Self {
            reason: FallbackReason::BrokerRefusal,
            message: format!("{}: {}", refusal.reason, refusal.message),
            refusal: Some(Box::new(refusal)),
        }
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl Error for BrokerError {}

/// There is no connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The direct endpoint is no absolute path of at most 107 bytes.
    InvalidEndpoint(PathBuf),
    /// With `ZCBROKER_STRICT=1`: what would have been a fallback otherwise.
    Strict(BrokerError),
    /// Nobody accepts at the direct endpoint.
    NoDaemon {
        /// The direct endpoint.
        endpoint: PathBuf,
        /// What the system said.
        source: io::Error,
        /// Why it was tried, where the environment asked for something else.
        fallback: Option<BrokerError>,
    },
}

impl ConnectError {
    /// The failure that came before this one, or is it.
    pub fn fallback(&self) -> Option<&BrokerError> {
        match self {
            Self::InvalidEndpoint(_) => None,
            Self::Strict(why) => Some(why),
            Self::NoDaemon { fallback, .. } => fallback.as_ref(),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidEndpoint(endpoint) => {
                write!(f, "{} must be an absolute path of at most 107 bytes", endpoint.display())
            }
            Self::Strict(why) => write!(f, "ZCBROKER_STRICT: {why}"),
            Self::NoDaemon { endpoint, source, fallback } => {
                write!(f, "connect {}: {source}", endpoint.display())?;
                match fallback {
                    Some(why) => write!(f, " (after {why})"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::InvalidEndpoint(_) => None,
            Self::Strict(why) => Some(why),
            Self::NoDaemon { source, .. } => Some(source),
        }
    }
}
