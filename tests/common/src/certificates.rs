//! Certificates for servers under test, made by openssl.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::temporary_path;

/// A certificate authority, and a certificate of it for 127.0.0.1.
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes both.
    ///
    /// # Panics
    ///
    /// Where openssl is not there.
    #[track_caller]
    pub fn make() -> Certificates {
        let certificates = Certificates { folder: temporary_path("tls") };
        fs::create_dir(&certificates.folder).expect("a folder of our own");
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        // Each authority has a name of its own: one is not taken for another.
        let name = format!("/CN={}", certificates.folder.file_name().unwrap_or_default().display());
        let root = ["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", &name, "-days", "2"];
        certificates.openssl(&[&root, &key[..]].concat());
        let request = ["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server"];
        certificates.openssl(&[&request, &key[..]].concat());
        fs::write(certificates.folder.join("extensions"), "subjectAltName=IP:127.0.0.1\n").expect("a file of our own");
        let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        certificates.openssl(&[&sign, &["-extfile", "extensions", "-days", "1", "-out", "server.pem"][..]].concat());
        certificates
    }

    #[track_caller]
    fn openssl(&self, words: &[&str]) {
        let run = Command::new("openssl").args(words).current_dir(&self.folder).stdin(Stdio::null()).output();
        let run = run.unwrap_or_else(|error| panic!("openssl does not start ({error}): apt-get install openssl"));
        assert!(run.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&run.stderr));
    }

    /// The path of `ca.pem`, `server.pem` or `server.key`.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("a name of ours").to_owned()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // What is left behind lies among the temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
