//! Unix sockets and their files: whose they are, who may open them, and when they go.
//!
//! Who serves a path holds a lock beside it (`PATH.lock`), from before it looks at the path until its own socket is gone
//! from there. So of two servers that start at once one finds the path in use, and a server removes no socket but its own
//! or one without a listener.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use rustix::fs::OFlags;
use socket2::{Domain, SockAddr, Socket, Type};

use super::ServeError;
use crate::config::Unix;

/// Times a lock is taken anew because its file was removed meanwhile; then the path counts as in use.
const LOCK_TRIES: usize = 100;

/// A socket that this process listens on; its file goes when this is dropped, if it is still the one.
pub(super) struct UnixSocket {
    path: PathBuf,
    file: FileId,
    /// While it is open the number of its file is given to no other.
    socket: Socket,
    /// Released behind all of that.
    _lock: Lock,
}

impl UnixSocket {
    /// Listens on a path, as it is configured for all of them. A socket there without a listener is replaced.
    ///
    /// # Errors
    /// Where another process serves the path, a file that is no socket stands there, or the kernel refuses.
    pub(super) fn bind(path: &Path, unix: &Unix, backlog: i32) -> Result<UnixSocket, ServeError> {
        let address = || format!("unix:{}", path.display());
        let fail = |error| ServeError::Listen { address: address(), error };
        let bound = UnixSocket::bind_only(path).map_err(fail)?;
        if !unix.group.is_empty() {
            let fail = |error| ServeError::Group { address: address(), group: unix.group.clone(), error };
            let group = group_id(&unix.group).map_err(fail)?;
            lchown(path, None, Some(group)).map_err(fail)?;
        }
        fs::set_permissions(path, Permissions::from_mode(unix.mode)).map_err(fail)?;
        // Not before: no client connects with other rights than those.
        bound.socket.listen(backlog).map_err(fail)?;
        Ok(bound)
    }

    fn bind_only(path: &Path) -> io::Result<UnixSocket> {
        let address = SockAddr::unix(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let lock = Lock::take(path)?;
        remove_stale(path, &address)?;
        socket.bind(&address)?;
        let file = FileId::of(&fs::symlink_metadata(path)?);
        Ok(UnixSocket { path: path.to_owned(), file, socket, _lock: lock })
    }

    /// One more descriptor of the socket.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) fn listener(&self) -> Result<Socket, ServeError> {
        let fail = |error| ServeError::Listen { address: format!("unix:{}", self.path.display()), error };
        self.socket.try_clone().map_err(fail)
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        remove_if(&self.path, |found| FileId::of(found) == self.file);
    }
}

/// The right to a path.
struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// The lock of `served`; an error of the kind `AddrInUse` where another has it.
    fn take(served: &Path) -> io::Result<Lock> {
        let mut path = served.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow);
        let fail = |error: io::Error| io::Error::new(error.kind(), format!("cannot lock {}: {error}", path.display()));
        for _ in 0..LOCK_TRIES {
            let file = options.open(&path).map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::AddrInUse.into()),
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
            let locked = FileId::of(&file.metadata().map_err(fail)?);
            // Who had it before may have removed the file in the meantime: the next one would lock another.
            if fs::symlink_metadata(&path).is_ok_and(|found| FileId::of(&found) == locked) {
                return Ok(Lock { path, file });
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Ok(locked) = self.file.metadata() else { return };
        // With something in it, it was never made for this.
        remove_if(&self.path, |found| FileId::of(found) == FileId::of(&locked) && found.len() == 0);
    }
}

/// A file, whatever its name.
#[derive(PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(file: &Metadata) -> FileId {
        FileId { device: file.dev(), inode: file.ino() }
    }
}

fn remove_if(path: &Path, is_ours: impl FnOnce(&Metadata) -> bool) {
    if fs::symlink_metadata(path).is_ok_and(|found| is_ours(&found))
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file of a Unix socket");
    }
}

/// Removes a socket without a listener.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text = "what stands there is no socket, and is left alone";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A server that does not accept, of whatever kind, is not waited for.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// The number of a group that is named, or numbered.
fn group_id(group: &str) -> io::Result<u32> {
    match Group::from_name(group)? {
        Some(found) => Ok(found.gid.as_raw()),
        None => group.parse().map_err(|_| io::Error::new(io::ErrorKind::NotFound, "there is no such group")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Barrier;

    use super::*;

    /// A folder of this test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("fanfare-{name}-{}", std::process::id()));
            fs::create_dir(&folder).unwrap();
            Folder(folder)
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn unix() -> Unix {
        crate::config::Config::default().unix
    }

    fn bind(path: &Path) -> Result<UnixSocket, ServeError> {
        UnixSocket::bind(path, &unix(), 16)
    }

    fn refused(path: &Path) -> String {
        match bind(path) {
            Ok(_) => panic!("{} is served", path.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let folder = Folder::new("stale");
        let path = folder.0.join("s");
        let other = UnixListener::bind(&path).unwrap();
        assert!(refused(&path).contains("is in use"), "another program serves it");
        drop(other);
        let ours = bind(&path).unwrap();
        assert!(refused(&path).contains("is in use"));
        assert!(UnixStream::connect(&path).is_ok());
        drop(ours);
        assert_eq!(folder.names(), [""; 0], "nothing is left");
        drop(bind(&path).unwrap());
    }

    #[test]
    fn what_is_no_socket_is_refused_and_stays() {
        let folder = Folder::new("plain");
        let path = folder.0.join("s");
        fs::write(&path, "mine").unwrap();
        assert!(refused(&path).contains("what stands there is no socket"), "{}", refused(&path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(refused(&path).contains("what stands there is no socket"));
        let links = folder.0.join("t.lock");
        std::os::unix::fs::symlink(folder.0.join("elsewhere"), &links).unwrap();
        assert!(refused(&folder.0.join("t")).contains("cannot lock"), "a link is not followed");
        assert!(!folder.0.join("elsewhere").exists());
    }

    #[test]
    fn only_its_own_file_is_removed() {
        let folder = Folder::new("own");
        let path = folder.0.join("s");
        let ours = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(ours);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        let ours = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let next = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(UnixStream::connect(&path).is_ok(), "the next process's");
        drop(next);
        fs::write(folder.0.join("s.lock"), "mine").unwrap();
        drop(bind(&path).unwrap());
        assert_eq!(fs::read_to_string(folder.0.join("s.lock")).unwrap(), "mine");
    }

    #[test]
    fn of_several_that_start_at_once_one_serves() {
        let folder = Folder::new("race");
        let path = folder.0.join("s");
        for _ in 0..200 {
            drop(UnixListener::bind(&path).unwrap());
            let start = Barrier::new(4);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let try_one = || {
                    start.wait();
                    bind(&path)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(try_one)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
            assert!(UnixStream::connect(&path).is_ok());
            drop(bound);
            assert_eq!(folder.names(), [""; 0]);
        }
    }

    #[test]
    fn mode_and_group_are_as_configured() {
        let folder = Folder::new("mode");
        let path = folder.0.join("s");
        let own = rustix::process::getgid().as_raw();
        for (mode, group) in [(0o660, String::new()), (0o666, own.to_string()), (0o600, String::new())] {
            let socket = UnixSocket::bind(&path, &Unix { mode, group }, 16).unwrap();
            let file = fs::symlink_metadata(&path).unwrap();
            assert_eq!((file.mode() & 0o7777, file.gid()), (mode, own));
            drop(socket);
        }
        let nobodys = Unix { group: "no such group".to_owned(), ..unix() };
        let Err(error) = UnixSocket::bind(&path, &nobodys, 16) else { panic!("there is no such group") };
        assert!(error.to_string().contains("there is no such group"), "{error}");
        assert_eq!(folder.names(), [""; 0]);
        assert_eq!(group_id("root").unwrap(), 0);
    }
}
