//! Listeners: the addresses of `listen` and of `[[listener]]` entries, and how each is served.

use std::path::PathBuf;

use super::auth;
use super::effective::Effective;
use super::error::Problem;
use super::listen::Listen;
use super::source::Source;
use super::table::{LISTENER, LISTENER_ADDRESS};
use super::values::Values;
use crate::limits::LISTENERS_MAX;

/// What is listened on, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address; no other listener has it.
    pub address: Listen,
    /// The certificates of a listener that speaks TLS; none on a Unix socket.
    pub tls: Option<TlsFiles>,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// For whom it is.
    pub role: Role,
}

/// For whom a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// For everybody: WebSocket, pages, and the API where no listener has it alone.
    Clients,
    /// For the operator alone: it serves pages, which ask for no key here, and no WebSocket.
    Admin,
    /// For programs of the operator: it serves the API and health, and no WebSocket.
    Api,
}

/// The files that a listener's TLS is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// At least one; of several the client's SNI chooses, and the first is for who names none of them.
    pub certificates: Vec<CertificateFiles>,
    /// The certificate authorities of clients, wherever clients are asked for a certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether clients are asked for one.
    pub client_certificates: ClientCertificates,
}

/// A certificate and the key that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// A PEM file: the server's certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// A PEM file with the private key.
    pub key: PathBuf,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not.
    None,
    /// They are, and who has none gets in as well.
    Optional,
    /// They are, and who has none does not get in.
    Required,
}

/// A listener, and who says so.
struct Said {
    listener: Listener,
    source: Source,
    key: &'static str,
}

/// Where the settings of a certificate stand.
struct Keys {
    certificate: &'static str,
    key: &'static str,
    client_ca: &'static str,
    client_certificates: &'static str,
}

const SECTION: Keys = Keys {
    certificate: "tls.certificate",
    key: "tls.key",
    client_ca: "tls.client_ca",
    client_certificates: "tls.client_certificates",
};

const ENTRY: Keys = Keys {
    certificate: "listener.certificate",
    key: "listener.key",
    client_ca: "listener.client_ca",
    client_certificates: "listener.client_certificates",
};

const ENTRY_TLS: &str = "listener.tls";

/// Addresses for the operator alone.
const ADMIN: &str = "admin.listen";

/// Addresses for the API.
const API: &str = "api.listen";

/// What is wrong with an entry as a whole.
pub(super) fn fault(entry: &Values) -> Option<String> {
    if !entry.is_said(LISTENER_ADDRESS) {
        return Some("the listener has no address; add address = \"0.0.0.0:443\", or another".to_owned());
    }
    let certificates = (entry.paths(ENTRY.certificate).len(), entry.paths(ENTRY.key).len());
    if let Some(what) = unpaired(certificates) {
        return Some(what);
    }
    let means_tls = certificates.0 > 0 || (entry.is_said(ENTRY_TLS) && entry.switch(ENTRY_TLS));
    match entry.address(LISTENER_ADDRESS) {
        Listen::Unix(_) if means_tls => {
            Some("a Unix socket has no TLS; leave tls, certificate and key out, or give a TCP address".to_owned())
        }
        Listen::Unix(_) | Listen::Tcp(_) => None,
    }
}

/// What is wrong with so many certificates and keys.
fn unpaired(counts: (usize, usize)) -> Option<String> {
    match counts {
        (0, 0) => None,
        (_, 0) => Some("there is a certificate without its private key; add key".to_owned()),
        (0, _) => Some("there is a private key without its certificate; add certificate".to_owned()),
        (certificates, keys) if certificates != keys => Some(format!(
            "{certificates} certificates and {keys} keys do not belong together; name the key of each, in the same order"
        )),
        _ => None,
    }
}

/// The listeners of a configuration that [`check`] finds nothing wrong with.
pub(super) fn listeners(effective: &Effective) -> Vec<Listener> {
    said(effective).into_iter().map(|said| said.listener).collect()
}

/// Whether the addresses of `listen` are served: its default is not where entries add other addresses.
pub(super) fn serves_listen(effective: &Effective) -> bool {
    let own = [ADMIN, API].map(|key| effective.settings.listen(key));
    let adds = |entry: &Values| !own.iter().any(|own| own.contains(entry.address(LISTENER_ADDRESS)));
    effective.settings.is_said("listen") || !effective.entries(&LISTENER).iter().any(adds)
}

fn said(effective: &Effective) -> Vec<Said> {
    let settings = &effective.settings;
    let entries = effective.entries(&LISTENER);
    let addresses = if serves_listen(effective) { settings.listen("listen") } else { &[] };
    let (admin, api) = (settings.listen(ADMIN), settings.listen(API));
    let by_address = |address: &Listen, key: &'static str, role: Role| {
        let plain = || Said {
            listener: listener(settings, None, address.clone(), role),
            source: settings.source(key).clone(),
            key,
        };
        let entry = entries.iter().find(|entry| entry.address(LISTENER_ADDRESS) == address);
        entry.map_or_else(plain, |entry| by_entry(settings, entry, role))
    };
    let is_named = |address: &Listen| [addresses, admin, api].iter().any(|named| named.contains(address));
    let others = entries.iter().filter(|entry| !is_named(entry.address(LISTENER_ADDRESS)));
    let others = others.map(|entry| by_entry(settings, entry, Role::Clients));
    let named = addresses.iter().map(|address| by_address(address, "listen", Role::Clients));
    let admin = admin.iter().map(|address| by_address(address, ADMIN, Role::Admin));
    let api = api.iter().map(|address| by_address(address, API, Role::Api));
    named.chain(others).chain(admin).chain(api).collect()
}

fn by_entry(settings: &Values, entry: &Values, role: Role) -> Said {
    Said {
        listener: listener(settings, Some(entry), entry.address(LISTENER_ADDRESS).clone(), role),
        source: entry.source(LISTENER_ADDRESS).clone(),
        key: LISTENER_ADDRESS,
    }
}

fn listener(settings: &Values, entry: Option<&Values>, address: Listen, role: Role) -> Listener {
    // Section [tls] is for the addresses of `listen`; one for the operator or the API has TLS where its entry says so.
    let tls = match address {
        Listen::Tcp(_) if role == Role::Clients || entry.is_some() => tls(settings, entry),
        Listen::Tcp(_) | Listen::Unix(_) => None,
    };
    Listener { address, tls, proxy_protocol: entry.is_some_and(|entry| entry.switch("listener.proxy_protocol")), role }
}

/// The TLS of a TCP address: what its entry says, else what section `[tls]` does.
fn tls(settings: &Values, entry: Option<&Values>) -> Option<TlsFiles> {
    if entry.is_some_and(|entry| !entry.switch(ENTRY_TLS)) {
        return None;
    }
    let own = |key: fn(&Keys) -> &'static str| match entry.filter(|entry| entry.is_said(key(&ENTRY))) {
        Some(entry) => (entry, key(&ENTRY)),
        None => (settings, key(&SECTION)),
    };
    let (from, certificate) = own(|keys| keys.certificate);
    let key = if certificate == ENTRY.certificate { ENTRY.key } else { SECTION.key };
    let pairs = from.paths(certificate).iter().zip(from.paths(key));
    let certificates: Vec<CertificateFiles> = pairs
        .map(|(certificate, key)| CertificateFiles { certificate: certificate.clone(), key: key.clone() })
        .collect();
    if certificates.is_empty() {
        return None;
    }
    let (from, key) = own(|keys| keys.client_ca);
    let client_ca = Some(from.text(key)).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (from, key) = own(|keys| keys.client_certificates);
    let client_certificates = match from.word(key) {
        "optional" => ClientCertificates::Optional,
        "required" => ClientCertificates::Required,
        _ => ClientCertificates::None,
    };
    Some(TlsFiles { certificates, client_ca, client_certificates })
}

/// What does not fit together.
pub(super) fn check(effective: &Effective, problems: &mut Vec<Problem>) {
    let settings = &effective.settings;
    let is_faulty = |key: &&str| settings.is_faulty(key);
    if ["listen", ADMIN, API, SECTION.certificate, SECTION.key, SECTION.client_ca].iter().any(is_faulty) {
        return;
    }
    let counts = (settings.paths(SECTION.certificate).len(), settings.paths(SECTION.key).len());
    if let Some(what) = unpaired(counts) {
        let key = if counts.0 == 0 { SECTION.key } else { SECTION.certificate };
        return problems.push(Problem::new(settings.source(key).clone(), key, what));
    }
    let problems_before = problems.len();
    check_entries(effective, problems);
    if problems.len() > problems_before {
        return;
    }
    let all = said(effective);
    check_addresses(&all, problems);
    check_certificates(effective, &all, problems);
    if !settings.is_faulty("open") && !settings.switch("open") && !auth::is_meant(effective) {
        check_reach(&all, problems);
    }
}

/// No entry twice, and none that asks for TLS without a certificate.
fn check_entries(effective: &Effective, problems: &mut Vec<Problem>) {
    let entries = effective.entries(&LISTENER);
    let is_plain = effective.settings.paths(SECTION.certificate).is_empty();
    for (index, entry) in entries.iter().enumerate() {
        let address = entry.address(LISTENER_ADDRESS);
        if entries[..index].iter().any(|other| other.address(LISTENER_ADDRESS) == address) {
            let text = format!("another listener has {address}; write one for each address");
            problems.push(Problem::new(entry.source(LISTENER_ADDRESS).clone(), LISTENER_ADDRESS, text));
        }
        let asks = entry.is_said(ENTRY_TLS) && entry.switch(ENTRY_TLS);
        if asks && is_plain && entry.paths(ENTRY.certificate).is_empty() {
            let text = "there is no certificate for it; add certificate and key here, or in section [tls]".to_owned();
            problems.push(Problem::new(entry.source(ENTRY_TLS).clone(), ENTRY_TLS, text));
        }
    }
}

/// No address twice, and not too many.
fn check_addresses(all: &[Said], problems: &mut Vec<Problem>) {
    for (index, Said { listener, source, key }) in all.iter().enumerate() {
        let address = &listener.address;
        if all[..index].iter().any(|other| other.listener.address == *address) {
            problems.push(Problem::new(source.clone(), key, format!("{address} is named twice; remove one")));
        }
        if let Some(part) = all.iter().find(|other| address.includes(&other.listener.address)) {
            let part = &part.listener.address;
            problems.push(Problem::new(source.clone(), key, format!("{address} includes {part}; remove one")));
        }
    }
    if let Some(beyond) = all.get(LISTENERS_MAX) {
        let text = format!("{} listeners are too many; write at most {LISTENERS_MAX}", all.len());
        problems.push(Problem::new(beyond.source.clone(), beyond.key, text));
    }
}

/// Where clients are asked for certificates there are authorities to check them against, and the other way round.
fn check_certificates(effective: &Effective, all: &[Said], problems: &mut Vec<Problem>) {
    let asks = |tls: &TlsFiles| tls.client_certificates != ClientCertificates::None;
    let no_authorities = "clients are asked for certificates that nothing would be checked against; add client_ca";
    let no_question = "clients are asked for no certificate that would be checked against it; add client_certificates = \
                       \"required\", or leave this out";
    let no_tls = "there is no certificate, and so no TLS; add certificate and key, or leave this out";
    let settings = &effective.settings;
    let mut refuse = |from: &Values, key: &'static str, text: &str| {
        problems.push(Problem::new(from.source(key).clone(), key, text.to_owned()));
    };
    for entry in effective.entries(&LISTENER) {
        let address = entry.address(LISTENER_ADDRESS);
        let tls = all.iter().find(|said| said.listener.address == *address).and_then(|said| said.listener.tls.as_ref());
        let says = |key: &&str| entry.is_said(key);
        match (tls, [ENTRY.client_ca, ENTRY.client_certificates].iter().find(|key| says(key))) {
            (None, Some(key)) => refuse(entry, key, no_tls),
            (Some(tls), Some(key)) if asks(tls) && tls.client_ca.is_none() => refuse(entry, key, no_authorities),
            (Some(tls), Some(key)) if !asks(tls) && *key == ENTRY.client_ca => refuse(entry, key, no_question),
            (_, _) => {}
        }
    }
    let asks_by_default = settings.word(SECTION.client_certificates) != "none";
    let has_default = !settings.text(SECTION.client_ca).is_empty();
    let is_used = all.iter().filter_map(|said| said.listener.tls.as_ref()).any(asks);
    if asks_by_default && settings.paths(SECTION.certificate).is_empty() {
        refuse(settings, SECTION.client_certificates, no_tls);
    } else if asks_by_default && !has_default {
        refuse(settings, SECTION.client_certificates, no_authorities);
    } else if has_default && !is_used {
        refuse(settings, SECTION.client_ca, no_question);
    }
}

/// No address that strangers can reach, unless the operator said so. One for the operator alone serves counters, and
/// naming it says so; one for the API asks for keys.
fn check_reach(all: &[Said], problems: &mut Vec<Problem>) {
    let is_reached = |said: &&Said| !said.listener.address.is_local() && said.listener.role == Role::Clients;
    if let Some(Said { listener, source, key }) = all.iter().find(is_reached) {
        let address = &listener.address;
        let text = format!(
            "anyone who can reach {address} could read and send everything, because there is no authentication; \
             add a key for tokens ([[auth.key]]), say --open (or open = true) if you mean that, \
             or listen on a loopback address such as 127.0.0.1:8080"
        );
        problems.push(Problem::new(source.clone(), key, text));
    }
}
