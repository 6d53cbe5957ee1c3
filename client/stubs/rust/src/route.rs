use std::io;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::private_dir::PrivateDir;
use crate::proto::RouteInfo;
use crate::socket::is_endpoint;

const MAX_INFO_BYTES: usize = 64 * 1024;
const MAX_STEM_BYTES: usize = 40;
const MAX_NAME_BYTES: usize = 64;

/// Where the way to one version of a service stands in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedRoute {
    /// The broker's public name, which leads to the service whether it runs or
    /// not.
    pub socket: PathBuf,
    /// The route info: where the backend itself listens while it runs.
    pub info: PathBuf,
}

/// The names of `service` at `version` in a runtime directory, whether they
/// exist or not. `InvalidInput`: a name or version outside its grammar.
pub fn named_route(runtime_dir: &Path, service: &str, version: &str) -> io::Result<NamedRoute> {
    check_names(service, version)?;
    let dir = runtime_dir.join("routes").join(service);
    let stem = stem(version);
    Ok(NamedRoute {
        socket: dir.join(format!("{stem}.sock")),
        info: dir.join(format!("{stem}.info")),
    })
}

/// Decodes a route info. `InvalidData`: it is none, or its endpoint is no
/// absolute socket path.
pub fn decode_route_info(bytes: &[u8]) -> io::Result<RouteInfo> {
    let info = RouteInfo::decode(bytes).map_err(|error| invalid_data(error.to_string()))?;
    if !is_endpoint(Path::new(&info.endpoint)) {
        return Err(invalid_data(format!("{:?} is no absolute socket path", info.endpoint)));
    }
    Ok(info)
}

/// The route info of `service` at `version` in `dir`, checked to be of both.
pub(crate) fn read_route_info(
    dir: &PrivateDir,
    service: &str,
    version: &str,
) -> io::Result<RouteInfo> {
    check_names(service, version)?;
    let leaf = format!("{}.info", stem(version));
    let bytes = dir.open_at("routes")?.open_at(service)?.read(&leaf, MAX_INFO_BYTES)?;
    let info = decode_route_info(&bytes)?;
    if info.service != service || info.version != version {
        return Err(invalid_data(format!("{leaf} is of another service or version")));
    }
    Ok(info)
}

/// A version over 40 bytes stands as the first 8 bytes of its BLAKE3.
fn stem(version: &str) -> String {
    if version.len() <= MAX_STEM_BYTES {
        return version.to_owned();
    }
    blake3::hash(version.as_bytes()).to_hex()[..16].to_owned()
}

fn check_names(service: &str, version: &str) -> io::Result<()> {
    let invalid = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if !is_service_name(service) {
        return invalid(format!("{service:?} is no service name"));
    }
    if !is_version(version) {
        return invalid(format!("{version:?} is no version"));
    }
    Ok(())
}

fn is_service_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && all(name, |c| is_lower_or_digit(c) || c == b'-')
}

/// digits.digits.digits, optionally '-' and a tail of a-z, 0-9 and '.'.
fn is_version(version: &str) -> bool {
    let (numbers, tail) = match version.split_once('-') {
        Some((numbers, tail)) => (numbers, Some(tail)),
        None => (version, None),
    };
    version.len() <= MAX_NAME_BYTES
        && numbers.split('.').count() == 3
        && numbers
            .split('.')
            .all(|number| !number.is_empty() && all(number, |c| c.is_ascii_digit()))
        && tail.map_or(true, |tail| {
            !tail.is_empty() && all(tail, |c| is_lower_or_digit(c) || c == b'.')
        })
}

fn all(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(fits)
}

fn is_lower_or_digit(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn invalid_data(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_their_grammar_are_refused() {
        for (service, version) in [
            ("", "1.0.0"),
            ("Demo", "1.0.0"),
            ("../demo", "1.0.0"),
            (&*"s".repeat(65), "1.0.0"),
            ("demo", ""),
            ("demo", "1.0"),
            ("demo", "1.0.0-"),
            ("demo", "1.0.0-A"),
            ("demo", "1..0"),
            ("demo", "1.0.0/../x"),
            ("demo", &*format!("1.0.0-{}", "a".repeat(59))),
        ] {
            let error = named_route(Path::new("/r"), service, version).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{service} {version}");
        }
    }
}
