use std::error::Error;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::client::conn::{Builder, SendRequest};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{timeout_at, Instant};
use tonic::body::BoxBody;
use tonic::client::Grpc;
use tonic::codec::ProstCodec;
use tonic::codegen::http::uri::{PathAndQuery, Uri};
use tonic::{Code, Request, Status};

use crate::error::{BrokerError, FallbackReason, Refusal};
use crate::framed::{AdminRequest, AdminVerb, Frame};
use crate::proto::admin_client::AdminClient;
use crate::proto::broker_client::BrokerClient;
use crate::proto::{NegotiateRequest, NegotiateResponse};
use crate::runtime_dir;
use crate::socket::{dial, is_endpoint, is_ours};

/// How long a broker may take for any sign of life.
const CONTACT: Duration = Duration::from_millis(500);

const ADMIN_PROTOCOL: u32 = 0xAD01;

/// One HTTP/2 connection to the broker, whose owner was checked. It lives in
/// the tokio runtime in which it was made and ends when it is dropped.
pub type Channel = SendRequest<BoxBody>;

/// Asks the broker of this user where a backend listens; it starts one if need
/// be. Gives up after `deadline`, and after half a second without a sign of
/// life.
pub async fn negotiate(
    request: NegotiateRequest,
    deadline: Duration,
) -> Result<NegotiateResponse, BrokerError> {
    let deadline = Instant::now() + deadline;
    let broker = find_broker()?;
    let contact = deadline.min(Instant::now() + CONTACT);
    let mut grpc = Grpc::with_origin(open_channel(&broker, contact).await?, origin());
    let version = request.wanted_version.clone();
    let mut request = Request::new(request);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));

    grpc.ready().await.map_err(broken)?;
    // As a stream, since the initial metadata is a sign of life.
    let call = grpc.server_streaming(
        request,
        PathAndQuery::from_static("/zcbroker.v1.Broker/Negotiate"),
        ProstCodec::<NegotiateRequest, NegotiateResponse>::default(),
    );
    let slow = |_| BrokerError::new(FallbackReason::BrokerSlow, "no answer in time");
    let mut answers =
        with_contact(call, &broker, contact, deadline).await?.map_err(failure)?.into_inner();
    let answer = timeout_at(deadline, answers.message()).await.map_err(slow)?.map_err(failure)?;
    match answer {
        Some(answer) if is_usable(&answer, &version) => Ok(answer),
        _ => Err(BrokerError::new(
            FallbackReason::BrokerWrongReply,
            "the answer has no route of this version",
        )),
    }
}

/// For the calls of `zcbroker.v1.Broker` that this crate does not wrap.
pub async fn broker_client() -> Result<BrokerClient<Channel>, BrokerError> {
    let channel = open_channel(&find_broker()?, Instant::now() + CONTACT).await?;
    Ok(BrokerClient::with_origin(channel, origin()))
}

/// For `zcbroker.v1.Admin`.
pub async fn admin_client() -> Result<AdminClient<Channel>, BrokerError> {
    let channel = open_channel(&find_broker()?, Instant::now() + CONTACT).await?;
    Ok(AdminClient::with_origin(channel, origin()))
}

fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

fn find_broker() -> Result<PathBuf, BrokerError> {
    let dir = runtime_dir::open().map_err(unusable)?;
    let broker = dir.path().join("broker.sock");
    if !is_endpoint(&broker) {
        return Err(BrokerError::new(
            FallbackReason::BrokerUnreachable,
            format!("{} is longer than sockets may be", broker.display()),
        ));
    }
    Ok(broker)
}

/// Connects, and checks who listens before a byte is written.
async fn dial_broker(broker: &Path, contact: Instant) -> Result<UnixStream, BrokerError> {
    let stream = dial(broker, contact).await.map_err(unusable)?;
    if !is_ours(&stream) {
        return Err(BrokerError::new(
            FallbackReason::BrokerForeign,
            format!("{} belongs to another user", broker.display()),
        ));
    }
    Ok(stream)
}

async fn open_channel(broker: &Path, contact: Instant) -> Result<Channel, BrokerError> {
    let stream = dial_broker(broker, contact).await?;
    let (channel, connection) =
        Builder::new().executor(Spawn).http2_only(true).handshake(stream).await.map_err(broken)?;
    tokio::spawn(connection);
    Ok(channel)
}

#[derive(Clone)]
struct Spawn;

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        tokio::spawn(work);
    }
}

/// `call`'s outcome by `deadline`, if the broker lives: silent until `contact`
/// it may be building its gRPC server still, and is asked for its health, which
/// it answers however busy the machine is.
async fn with_contact<T>(
    call: impl Future<Output = T>,
    broker: &Path,
    contact: Instant,
    deadline: Instant,
) -> Result<T, BrokerError> {
    tokio::pin!(call);
    if let Ok(outcome) = timeout_at(contact, &mut call).await {
        return Ok(outcome);
    }
    let patience = deadline.min(Instant::now() + CONTACT);
    let alive = tokio::select! {
        biased;
        outcome = &mut call => return Ok(outcome),
        health = timeout_at(patience, check_health(broker, patience)) => {
            matches!(health, Ok(Ok(())))
        }
    };
    if !alive {
        return Err(BrokerError::new(
            FallbackReason::BrokerMute,
            format!("the broker at {} gives no sign of life", broker.display()),
        ));
    }
    timeout_at(deadline, call)
        .await
        .map_err(|_| BrokerError::new(FallbackReason::BrokerSlow, "no answer in time"))
}

/// HEALTHZ on the framed lane. Any frame is a sign of life.
async fn check_health(broker: &Path, contact: Instant) -> Result<(), Box<dyn Error>> {
    let mut stream = dial_broker(broker, contact).await?;
    let request = AdminRequest { verb: AdminVerb::Healthz.into(), ..Default::default() };
    let body = Frame {
        envelope_version: 1,
        payload_protocol: ADMIN_PROTOCOL,
        payload: request.encode_to_vec(),
        request_id: 1,
        ..Default::default()
    }
    .encode_to_vec();
    let mut frame = vec![1];
    frame.extend(u32::try_from(body.len())?.to_le_bytes());
    frame.extend(body);
    stream.write_all(&frame).await?;
    match stream.read_u8().await? {
        1 => Ok(()),
        _ => Err("no frame".into()),
    }
}

fn is_usable(answer: &NegotiateResponse, version: &str) -> bool {
    match &answer.route {
        Some(route) => route.version == version && is_endpoint(Path::new(&route.endpoint)),
        None => false,
    }
}

fn unusable(error: io::Error) -> BrokerError {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => FallbackReason::BrokerMissing,
        io::ErrorKind::ConnectionRefused => FallbackReason::BrokerRefused,
        io::ErrorKind::TimedOut => FallbackReason::BrokerMute,
        _ => FallbackReason::BrokerUnreachable,
    };
    BrokerError::new(reason, error.to_string())
}

/// The connection failed before there was a call.
fn broken(error: hyper::Error) -> BrokerError {
    failure(Status::from_error(Box::new(error)))
}

/// What a failed call means.
fn failure(status: Status) -> BrokerError {
    if let Some(refusal) = Refusal::from_status(&status) {
        return refusal.into();
    }
    let reason = match status.code() {
        Code::DeadlineExceeded => FallbackReason::BrokerSlow,
        Code::Unimplemented => FallbackReason::BrokerWrongReply,
        _ if is_of_protocol(&status) => FallbackReason::BrokerClosed,
        _ => FallbackReason::BrokerGarbage,
    };
    BrokerError::new(reason, format!("{:?}: {}", status.code(), status.message()))
}

/// Whether a connection that failed had said nothing wrong until then.
fn is_of_protocol(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(http2) = error.downcast_ref::<h2::Error>() {
            return http2.is_io() || http2.is_remote();
        }
        if error.is::<io::Error>() {
            return true;
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
            if hyper.is_canceled() || hyper.is_closed() {
                return true;
            }
        }
        cause = error.source();
    }
    // A call that reaches a server in its last moment.
    matches!(status.code(), Code::Unavailable | Code::Cancelled)
}
