//! Certificates for servers under test, made by openssl.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::temporary_path;

/// A certificate authority, and certificates of it: one for 127.0.0.1, and others as they are made.
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
        certificates.sign("server", "/CN=server", "IP:127.0.0.1");
        certificates
    }

    /// Makes a certificate of the authority, `NAME.pem`, and its key, `NAME.key`: with this subject, and these alternative
    /// names if there are any, both as openssl writes them.
    ///
    /// # Panics
    ///
    /// Where openssl is not there, or does not take them.
    #[track_caller]
    pub fn sign(&self, name: &str, subject: &str, alternative_names: &str) {
        let file = |kind: &str| format!("{name}.{kind}");
        let (key, request, certificate, extensions) = (file("key"), file("csr"), file("pem"), file("extensions"));
        let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        self.openssl(&[&["req", "-utf8", "-keyout", &key, "-out", &request, "-subj", subject], &kind[..]].concat());
        // Without any extension it would be of a version that is not taken.
        let lines = match alternative_names {
            "" => "basicConstraints=CA:FALSE\n".to_owned(),
            names => format!("subjectAltName={names}\n"),
        };
        fs::write(self.folder.join(&extensions), lines).expect("a file of our own");
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        self.openssl(&[&sign, &["-extfile", &extensions, "-days", "1", "-out", &certificate][..]].concat());
    }

    #[track_caller]
    fn openssl(&self, words: &[&str]) {
        let run = Command::new("openssl").args(words).current_dir(&self.folder).stdin(Stdio::null()).output();
        let run = run.unwrap_or_else(|error| panic!("openssl does not start ({error}): apt-get install openssl"));
        assert!(run.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&run.stderr));
    }

    /// The path of `ca.pem`, `server.pem`, `server.key`, or a file of another certificate.
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
