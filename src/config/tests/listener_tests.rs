//! Listeners: which addresses are served and how, from section `[tls]` and from entries, and what each mistake is answered.

use super::*;

fn listeners(sources: &Sources) -> Vec<Listener> {
    loaded(sources).listeners
}

fn tls(pairs: &[(&str, &str)], client_ca: Option<&str>, client_certificates: ClientCertificates) -> Option<TlsFiles> {
    let files =
        |(certificate, key): &(&str, &str)| CertificateFiles { certificate: certificate.into(), key: key.into() };
    let certificates = pairs.iter().map(files).collect();
    Some(TlsFiles { certificates, client_ca: client_ca.map(Into::into), client_certificates })
}

fn listener(address: &str, tls: Option<TlsFiles>) -> Listener {
    Listener { address: address.parse().expect(address), tls, proxy_protocol: false, role: Role::Clients }
}

fn entries(texts: &[&str]) -> Sources {
    Sources { list_flags: texts.iter().map(|text| (&LISTENER, (*text).to_owned())).collect(), ..Sources::default() }
}

#[test]
fn certificates_are_for_every_tcp_address_of_listen() {
    let text = "listen = [\"127.0.0.1:1\", \"unix:/s\", \"[::1]:1\"]\n\
                [tls]\ncertificate = [\"a.pem\", \"b,b.pem\"]\nkey = [\"a.key\", \"b.key\"]\n";
    let pairs = [("a.pem", "a.key"), ("b,b.pem", "b.key")];
    let own = || tls(&pairs, None, ClientCertificates::None);
    let expected = [listener("127.0.0.1:1", own()), listener("unix:/s", None), listener("[::1]:1", own())];
    assert_eq!(listeners(&file(text)), expected);
    let text = "[tls]\ncertificate = \"a.pem,b.pem\"\nkey = \"a.key,b.key\"\nclient_ca = \"ca.pem\"\n\
                client_certificates = \"optional\"\n";
    let pairs = [
        ("tls.certificate", "a.pem, b.pem"),
        ("tls.key", "a.key,b.key"),
        ("tls.client_ca", "ca.pem"),
        ("tls.client_certificates", "optional"),
    ];
    let own = tls(&[("a.pem", "a.key"), ("b.pem", "b.key")], Some("ca.pem"), ClientCertificates::Optional);
    let variables = pairs.map(|(key, value)| (Setting::find(key).expect(key).env(), value));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for sources in [flags(&pairs), env(&variables), file(text)] {
        assert_eq!(listeners(&sources), [listener("127.0.0.1:8080", own.clone())]);
    }
}

#[test]
fn an_entry_refines_an_address_of_listen_or_adds_one() {
    let text = "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n[tls]\ncertificate = [\"a.pem\"]\nkey = [\"a.key\"]\n\
                [[listener]]\naddress = \"127.0.0.1:3\"\ncertificate = [\"c.pem\"]\nkey = [\"c.key\"]\n\
                client_ca = \"ca.pem\"\nclient_certificates = \"required\"\n\
                [[listener]]\naddress = \"127.0.0.1:2\"\ntls = false\nproxy_protocol = true\n";
    let expected = [
        listener("127.0.0.1:1", tls(&[("a.pem", "a.key")], None, ClientCertificates::None)),
        Listener { proxy_protocol: true, ..listener("127.0.0.1:2", None) },
        listener("127.0.0.1:3", tls(&[("c.pem", "c.key")], Some("ca.pem"), ClientCertificates::Required)),
    ];
    assert_eq!(listeners(&file(text)), expected);
    let listen: Vec<_> = loaded(&file(text)).listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:1", "127.0.0.1:2"], "they are what was written");
}

#[test]
fn without_listen_only_the_entries_are_served() {
    let one = "address=127.0.0.1:9, certificate=a.pem, key=a.key";
    let expected = [listener("127.0.0.1:9", tls(&[("a.pem", "a.key")], None, ClientCertificates::None))];
    assert_eq!(listeners(&entries(&[one])), expected);
    assert_eq!(listeners(&env(&[("FANFARE_LISTENER", one)])), expected);
    let mut both = entries(&[one, "address=unix:/s,proxy_protocol=true"]);
    let other = Listener { proxy_protocol: true, ..listener("unix:/s", None) };
    assert_eq!(listeners(&both), [expected[0].clone(), other.clone()]);
    both.flags = flags(&[("listen", "127.0.0.1:8080")]).flags;
    assert_eq!(listeners(&both), [listener("127.0.0.1:8080", None), expected[0].clone(), other]);
}

#[test]
fn what_an_entry_leaves_out_is_as_in_section_tls() {
    let text = "[tls]\ncertificate = [\"a.pem\"]\nkey = [\"a.key\"]\nclient_ca = \"ca.pem\"\n\
                [[listener]]\naddress = \"127.0.0.1:1\"\nclient_certificates = \"required\"\n\
                [[listener]]\naddress = \"127.0.0.1:2\"\ncertificate = [\"b.pem\"]\nkey = [\"b.key\"]\n";
    let expected = [
        listener("127.0.0.1:1", tls(&[("a.pem", "a.key")], Some("ca.pem"), ClientCertificates::Required)),
        listener("127.0.0.1:2", tls(&[("b.pem", "b.key")], Some("ca.pem"), ClientCertificates::None)),
    ];
    assert_eq!(listeners(&file(text)), expected);
    let (config, effective) = Config::load(&file(text)).expect("it is good");
    assert_eq!(loaded(&file(&effective.to_string())), config, "{effective}");
}

#[test]
fn certificates_that_do_not_fit_are_told() {
    for (pairs, message) in [
        (&[("tls.certificate", "a")][..], "--tls.certificate: there is a certificate without its private key; add key"),
        (&[("tls.key", "a")], "--tls.key: there is a private key without its certificate; add certificate"),
        (
            &[("tls.certificate", "a,b"), ("tls.key", "a")],
            "--tls.certificate: 2 certificates and 1 keys do not belong together; name the key of each, in the same order",
        ),
        (
            &[("tls.certificate", "a"), ("tls.key", "a"), ("tls.client_certificates", "optional")],
            "--tls.client_certificates: clients are asked for certificates that nothing would be checked against; add \
             client_ca",
        ),
        (
            &[("tls.client_certificates", "required"), ("tls.client_ca", "a")],
            "--tls.client_certificates: there is no certificate, and so no TLS; add certificate and key, or leave this out",
        ),
        (
            &[("tls.certificate", "a"), ("tls.key", "a"), ("tls.client_ca", "a")],
            "--tls.client_ca: clients are asked for no certificate that would be checked against it; add \
             client_certificates = \"required\", or leave this out",
        ),
    ] {
        assert_eq!(problems(&flags(pairs)), [message], "{pairs:?}");
    }
    assert_eq!(
        problems(&file("[tls]\ncertificate = [\"\"]\n")),
        ["f.toml:2:15: tls.certificate: \"\" is no file's path; write one of 1 to 4096 bytes"]
    );
}

#[test]
fn entries_that_do_not_fit_are_told() {
    for (entry, message) in [
        (
            "",
            "there is a part without =; write address=0.0.0.0:443,certificate=a.pem,key=a.key, and a value with a comma or a semicolon into the file",
        ),
        ("certificate=a,key=a", "the listener has no address; add address = \"0.0.0.0:443\", or another"),
        ("address=x", "address: \"x\" is no address; write IP:PORT, [IPv6]:PORT or unix:/path, as 127.0.0.1:8080"),
        ("address=127.0.0.1:1,certificate=a", "there is a certificate without its private key; add key"),
        ("address=127.0.0.1:1,key=a", "there is a private key without its certificate; add certificate"),
        (
            "address=127.0.0.1:1,tls=true",
            "there is no certificate for it; add certificate and key here, or in section [tls]",
        ),
        (
            "address=unix:/s,tls=true",
            "a Unix socket has no TLS; leave tls, certificate and key out, or give a TCP address",
        ),
        (
            "address=unix:/s,client_certificates=none",
            "there is no certificate, and so no TLS; add certificate and key, or leave this out",
        ),
        (
            "address=127.0.0.1:1,certificate=a,key=a,client_certificates=optional",
            "clients are asked for certificates that nothing would be checked against; add client_ca",
        ),
        (
            "address=127.0.0.1:1,certificate=a,key=a,client_ca=b",
            "clients are asked for no certificate that would be checked against it; add client_certificates = \
             \"required\", or leave this out",
        ),
        (
            "address=127.0.0.1:1,certificat=a",
            "there is a name that a listener does not have; did you mean certificate?",
        ),
        ("address=127.0.0.1:1;address=127.0.0.1:1", "another listener has 127.0.0.1:1; write one for each address"),
    ] {
        assert_eq!(problems(&entries(&[entry])), [format!("--listener: {message}")], "{entry}");
    }
    let many: Vec<String> = (1..=65).map(|port| format!("address=127.0.0.1:{port}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(problems(&entries(&many)), ["--listener: 65 listeners are too many; write at most 64"]);
    assert_eq!(listeners(&entries(&many[..64])).len(), 64);
    let mut part = entries(&["address=127.0.0.1:1"]);
    part.flags = flags(&[("listen", "0.0.0.0:1"), ("open", "true")]).flags;
    assert_eq!(problems(&part), ["--listen: 0.0.0.0:1 includes 127.0.0.1:1; remove one"]);
    assert_eq!(
        problems(&file("[listener]\naddress = \"127.0.0.1:1\"\n")),
        [
            "f.toml:1:1: listener: a table stands where listeners belong; write [[listener]] on a line of its own and the \
             listener's keys below"
        ]
    );
}

#[test]
fn an_entry_that_strangers_can_reach_needs_auth_or_open() {
    let world = file("[[listener]]\naddress = \"0.0.0.0:443\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n");
    let told = problems(&world);
    assert!(
        told[0].starts_with("f.toml:2:11: listener.address: anyone who can reach 0.0.0.0:443 could read"),
        "{told:?}"
    );
    let open = Sources { flags: flags(&[("open", "true")]).flags, ..world.clone() };
    assert_eq!(listeners(&open).len(), 1);
    let with_key = Sources { list_flags: vec![(&AUTH_KEY, "alg=HS256,secret_file=/s".to_owned())], ..world };
    assert_eq!(listeners(&with_key).len(), 1);
}
