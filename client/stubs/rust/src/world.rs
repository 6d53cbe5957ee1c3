use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::proto::World;

/// What daemons must have in common with this process to serve it, from its
/// environment as zccache reads it. Services without such a cache are compared
/// by the mount namespace alone.
pub fn own_world() -> World {
    World {
        cache_root: normal(&absolute(cache_root())).to_string_lossy().into_owned(),
        daemon_namespace: daemon_namespace(),
        mount_namespace: fs::read_link("/proc/self/ns/mnt")
            .map(|link| link.to_string_lossy().into_owned())
            .unwrap_or_default(),
    }
}

/// Names the routes of a world in `worlds/` of the runtime directory.
pub(crate) fn world_id(world: &World) -> String {
    let both = [&*world.cache_root, &*world.daemon_namespace].join("\0");
    format!("{:016x}", fnv64(both.as_bytes()))
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn cache_root() -> PathBuf {
    match variable("ZCCACHE_CACHE_DIR") {
        Some(root) => root.into(),
        None => PathBuf::from(variable("HOME").unwrap_or_else(|| ".".into())).join(".zccache"),
    }
}

fn absolute(path: PathBuf) -> PathBuf {
    env::current_dir().unwrap_or_default().join(path)
}

/// Without "." and "..", by the text alone.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                result.pop();
            }
            other => result.push(other),
        }
    }
    result
}

fn daemon_namespace() -> String {
    const LONGEST: usize = 32;
    let raw = env::var_os("ZCCACHE_DAEMON_NAMESPACE").unwrap_or_default();
    let raw = raw.to_string_lossy();
    let trimmed = raw.trim_matches(|c: char| c.is_ascii_whitespace());
    let safe: String = trimmed
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect();
    match safe.len() {
        0 => "default".to_owned(),
        length if length <= LONGEST => safe,
        _ => {
            let hash = fnv64(trimmed.as_bytes());
            format!("{}-{:08x}", &safe[..LONGEST], (hash ^ (hash >> 32)) as u32)
        }
    }
}

fn fnv64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
