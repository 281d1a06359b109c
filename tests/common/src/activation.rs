//! Socket activation without a supervisor: a server gets a listening socket that stays when it ends.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Lets a command be started with a socket as its descriptor 3, told of as sd_listen_fds(3) has it.
///
/// # Panics
///
/// Where there is no further descriptor.
pub fn pass(command: &mut Command, socket: &TcpListener) {
    let socket = OwnedFd::from(socket.try_clone().expect("a descriptor"));
    // It comes as the standard input: the only descriptors that a command hands on without more are these three.
    let script = r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=public exec "$0" "$@""#;
    let mut passing = Command::new("sh");
    passing.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => passing.env(name, value),
            None => passing.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        passing.current_dir(folder);
    }
    passing.stdin(Stdio::from(socket)).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = passing;
}
