//! The runner of tests/conformance for this crate: one request, a JSON object,
//! on standard input; one result, a JSON object, on standard output.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use serde_json::{json, Map, Value};
use zcbroker::proto::{
    BackendRoute, NegotiateRequest, NegotiateResponse, RouteInfo, RouteOrigin, StartPolicy,
    WireLane, World,
};
use zcbroker::{BrokerError, ConnectError, Options, RouteSource};

type Outcome = Result<Value, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let call: Value = serde_json::from_reader(io::stdin())?;
    let args = &call["args"];
    let result = match text(&call["op"]) {
        "runtime_dir" => runtime_dir(),
        "named_route" => named_route(args),
        "decode_route_info" => decode_route_info(args),
        "encode_request" => encode_request(args),
        "decode_response" => decode_response(args),
        "negotiate" => negotiate(args),
        "connect" => connect(args),
        other => Err(format!("there is no op {other:?}").into()),
    }?;
    println!("{result}");
    Ok(())
}

fn runtime_dir() -> Outcome {
    Ok(match zcbroker::runtime_dir() {
        Ok(path) => json!({ "path": path.to_str() }),
        Err(_) => json!({ "error": "no_runtime_dir" }),
    })
}

fn named_route(args: &Value) -> Outcome {
    let dir = Path::new(text(&args["runtime_dir"]));
    let result = zcbroker::named_route(dir, text(&args["service"]), text(&args["version"]));
    Ok(match result {
        Ok(route) => json!({ "socket": route.socket.to_str(), "info": route.info.to_str() }),
        Err(_) => json!({ "error": "name_invalid" }),
    })
}

fn decode_route_info(args: &Value) -> Outcome {
    Ok(match zcbroker::decode_route_info(&from_hex(text(&args["hex"]))?) {
        Ok(info) => json!({ "route": info_json(&info) }),
        Err(_) => json!({ "error": "route_info_invalid" }),
    })
}

fn encode_request(args: &Value) -> Outcome {
    let bytes = request(&args["request"])?.encode_to_vec();
    Ok(json!({ "hex": to_hex(&bytes) }))
}

fn decode_response(args: &Value) -> Outcome {
    let bytes = from_hex(text(&args["hex"]))?;
    Ok(match NegotiateResponse::decode(&*bytes) {
        Ok(response) => json!({ "response": response_json(&response) }),
        Err(_) => json!({ "error": "response_invalid" }),
    })
}

fn negotiate(args: &Value) -> Outcome {
    let answer = zcbroker::blocking::negotiate(request(&args["request"])?, deadline(args));
    Ok(match answer {
        Ok(answer) => json!({
            "origin": RouteOrigin::from_i32(answer.origin).map(|origin| origin.as_str_name()),
            "route": answer.route.as_ref().map(route_json),
        }),
        Err(error) => json!({ "error": broker_error_json(&error) }),
    })
}

fn connect(args: &Value) -> Outcome {
    let mut options = Options::new(text(&args["service"]), text(&args["version"]));
    options.deadline = deadline(args);
    options.accepted_lanes = lanes(&args["accepted_lanes"])?;
    let endpoint = text(&args["direct_endpoint"]);
    Ok(match zcbroker::blocking::connect(endpoint, &options) {
        Ok(connected) => json!({
            "lane": connected.lane.name(),
            "by": connected.route.map(|route| match route.source {
                RouteSource::RouteInfo => "route_info",
                RouteSource::Negotiation => "negotiation",
            }),
            "fallback": connected.fallback.map(|why| why.reason.name()),
            "endpoint": connected.endpoint.to_str(),
        }),
        Err(error) => {
            let kind = match error {
                ConnectError::Strict(_) => "strict",
                ConnectError::NoDaemon { .. } => "no_daemon",
                _ => "invalid_argument",
            };
            json!({ "error": {
                "kind": kind,
                "fallback": error.fallback().map(|why| why.reason.name()),
            } })
        }
    })
}

fn broker_error_json(error: &BrokerError) -> Value {
    match &error.refusal {
        Some(refusal) => json!({
            "code": upper_snake(&format!("{:?}", refusal.code)),
            "reason": refusal.reason,
            "domain": "zcbroker",
            "retry": refusal.retry_after.is_some(),
            "installed_versions": refusal.detail.installed_versions,
        }),
        None => json!({ "fallback": error.reason.name() }),
    }
}

// --- JSON as protobuf spells it, of the few messages in question

fn request(json: &Value) -> Result<NegotiateRequest, Box<dyn Error>> {
    let field = |name| Ok::<_, Box<dyn Error>>(text(&json[name]).to_owned());
    let world = &json["world"];
    let start_policy = match &json["startPolicy"] {
        Value::Null => StartPolicy::Unspecified,
        name => StartPolicy::from_str_name(text(name)).ok_or("startPolicy")?,
    };
    Ok(NegotiateRequest {
        service: field("service")?,
        wanted_version: field("wantedVersion")?,
        accepted_lanes: lanes(&json["acceptedLanes"])?.into_iter().map(i32::from).collect(),
        client_name: field("clientName")?,
        client_version: field("clientVersion")?,
        start_policy: start_policy.into(),
        world: world.as_object().map(|_| World {
            cache_root: text(&world["cacheRoot"]).to_owned(),
            daemon_namespace: text(&world["daemonNamespace"]).to_owned(),
            mount_namespace: text(&world["mountNamespace"]).to_owned(),
        }),
        ..Default::default()
    })
}

fn lanes(json: &Value) -> Result<Vec<WireLane>, Box<dyn Error>> {
    let names = json.as_array().map(Vec::as_slice).unwrap_or_default();
    names
        .iter()
        .map(|name| WireLane::from_str_name(text(name)).ok_or_else(|| "no wire lane".into()))
        .collect()
}

fn response_json(response: &NegotiateResponse) -> Value {
    let steps: Vec<Value> = response
        .steps
        .iter()
        .map(|step| {
            let mut json = present(&[("name", json!(step.name))]);
            if let Some(duration) = &step.duration {
                json.insert("duration".to_owned(), json!(duration.to_string()));
            }
            json.into()
        })
        .collect();
    let mut json = present(&[("steps", json!(steps))]);
    if let Some(route) = &response.route {
        json.insert("route".to_owned(), route_json(route));
    }
    if response.origin != 0 {
        let origin = RouteOrigin::from_i32(response.origin);
        let value = origin.map_or(json!(response.origin), |origin| json!(origin.as_str_name()));
        json.insert("origin".to_owned(), value);
    }
    json.into()
}

fn route_json(route: &BackendRoute) -> Value {
    present(&[
        ("endpoint", json!(route.endpoint)),
        ("lanes", lane_names(route.lanes.iter().copied())),
        ("version", json!(route.version)),
        ("pid", json!(route.pid)),
        ("startTime", json!(route.start_time.to_string())),
        ("bootId", json!(route.boot_id)),
        ("namedRoute", json!(route.named_route)),
        ("generation", json!(route.generation.to_string())),
    ])
    .into()
}

fn info_json(info: &RouteInfo) -> Value {
    json!({
        "service": info.service,
        "version": info.version,
        "endpoint": info.endpoint,
        "lanes": lane_names(info.lanes.iter().map(|lane| *lane as i32)),
        "binary": info.binary,
        "pid": info.pid,
        "start_time": info.start_time,
        "boot_id": info.boot_id,
        "group": info.group,
        "generation": info.generation,
        "cache_root": info.cache_root,
        "daemon_namespace": info.daemon_namespace,
        "mount_namespace": info.mount_namespace,
    })
}

/// A lane of a later version is passed over.
fn lane_names(numbers: impl Iterator<Item = i32>) -> Value {
    numbers.filter_map(WireLane::from_i32).map(|lane| json!(lane.as_str_name())).collect()
}

/// Without fields at their default, as protobuf's JSON leaves them out.
fn present(fields: &[(&str, Value)]) -> Map<String, Value> {
    let is_default = |value: &Value| {
        *value == json!("") || *value == json!("0") || *value == json!(0) || *value == json!([])
    };
    fields
        .iter()
        .filter(|(_, value)| !is_default(value))
        .map(|(name, value)| (name.to_string(), value.clone()))
        .collect()
}

// --- Small things

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn deadline(args: &Value) -> Duration {
    Duration::from_millis(args["deadline_ms"].as_u64().unwrap_or(12_000))
}

/// `NotFound` as `NOT_FOUND`.
fn upper_snake(name: &str) -> String {
    let mut result = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !result.is_empty() {
            result.push('_');
        }
        result.push(c.to_ascii_uppercase());
    }
    result
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    if hex.len() % 2 != 0 || !hex.is_ascii() {
        return Err("no hexadecimal digits".into());
    }
    (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?)).collect()
}
