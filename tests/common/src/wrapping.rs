//! Servers that are started by another program.

use std::process::{Command, Stdio};

/// Has `program` start what the command would have started.
pub fn wrap(command: &mut Command, program: &str, args: &[&str]) {
    let mut wrapped = Command::new(program);
    wrapped.args(args).arg(command.get_program()).args(command.get_args());
    wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = wrapped;
}

/// Has SIGHUP reach the server: tests may run under nohup themselves, which passes on that it is ignored.
pub fn hears_hangups(command: &mut Command) {
    wrap(command, "env", &["--default-signal=HUP"]);
}
