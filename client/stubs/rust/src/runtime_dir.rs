use std::env;
use std::io;
use std::path::PathBuf;

use crate::private_dir::{own_uid, PrivateDir};

/// Where the broker of this user keeps its socket and its route infos:
/// `zcbroker/` in the first of `$XDG_RUNTIME_DIR`, `/run/user/<euid>` and
/// `/tmp/zcbroker-<euid>` that is the user's own directory of mode 0700.
///
/// Makes nothing: an error where there is none, or where `zcbroker/` in it is
/// missing or open to others.
pub fn runtime_dir() -> io::Result<PathBuf> {
    Ok(open()?.path().to_owned())
}

pub(crate) fn open() -> io::Result<PrivateDir> {
    base()?.open_at("zcbroker")
}

fn base() -> io::Result<PrivateDir> {
    let uid = own_uid();
    env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .into_iter()
        .chain([PathBuf::from(format!("/run/user/{uid}"))])
        // Collected anew, a path has no slash at its end, which would have a
        // symbolic link followed.
        .find_map(|path| PrivateDir::open(path.components().collect()).ok())
        .map_or_else(|| PrivateDir::open(format!("/tmp/zcbroker-{uid}").into()), Ok)
}
