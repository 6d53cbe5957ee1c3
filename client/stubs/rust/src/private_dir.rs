//! Directories that are ours alone. Each is opened relative to the one above
//! it, so what was checked is what is used.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{self, FileType, Mode, OFlags, CWD};

#[derive(Debug)]
pub(crate) struct PrivateDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl PrivateDir {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let fd = fs::openat(CWD, &path, directory_flags(), Mode::empty())?;
        Self::checked(fd, path)
    }

    pub(crate) fn open_at(&self, leaf: &str) -> io::Result<Self> {
        let fd = fs::openat(&self.fd, leaf, directory_flags(), Mode::empty())?;
        Self::checked(fd, self.path.join(leaf))
    }

    /// Reads a regular file that only its user may write, of at most `limit`
    /// bytes.
    pub(crate) fn read(&self, leaf: &str, limit: usize) -> io::Result<Vec<u8>> {
        use std::io::Read;

        // NONBLOCK: a FIFO must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, leaf, flags, Mode::empty())?;
        let stat = fs::fstat(&fd)?;
        let path = self.path.join(leaf);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || stat.st_uid != own_uid()
            || Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH)
        {
            return Err(refused(&path, "must be a file that only you may write"));
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(refused(&path, "is too long"));
        }
        Ok(bytes)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn checked(fd: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let stat = fs::fstat(&fd)?;
        let permissions = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        if stat.st_uid != own_uid() || Mode::from_raw_mode(stat.st_mode) & permissions != Mode::RWXU
        {
            return Err(refused(&path, "must be yours and have mode 0700"));
        }
        Ok(Self { fd, path })
    }
}

/// The effective user, who owns all that is ours.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn refused(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {what}", path.display()))
}
