//! Listeners of the API alone.

use std::fs;

use fanfare_testing::raw::upgrade_request;
use fanfare_testing::{Client, Server, eventually, free_addr, http_ask, http_get, temporary_path};

pub fn it_serves_health_and_no_pages_or_websocket(reactors: usize) {
    let secret = temporary_path("secret");
    fs::write(&secret, "a secret of the tests, of more than 32 bytes".replace(' ', "-")).expect("a temporary file");
    let key = format!("name=backend,verbs=publish,secret_file={}", secret.display());
    let (public, api) = (free_addr(), free_addr());
    let listen = [public, api].map(|addr| addr.to_string());
    let server =
        Server::with_reactors(reactors, &["--listen", &listen[0], "--api.listen", &listen[1], "--api.key", &key]);
    assert_eq!(server.listeners(), listen.map(|addr| format!("http://{addr}/")));
    for (target, status) in
        [("/health/live", 200), ("/health/ready", 200), ("/", 404), ("/stats", 404), ("/metrics", 404), ("/ws", 404)]
    {
        assert_eq!(http_get(&api, target).status, status, "{target}");
    }
    for target in ["/", "/ws?userId=alice", "/raw/den"] {
        assert_eq!(http_ask(&api, &upgrade_request(target, &[])).status, 404, "{target}");
    }
    assert_eq!(http_get(&public, "/").status, 200);
    Client::connect(&public, "alice").leave();
    fs::remove_file(secret).expect("it is there");
}

pub fn without_keys_it_says_so(reactors: usize) {
    let api = free_addr();
    let server = Server::with_reactors(reactors, &["--api.listen", &api.to_string()]);
    assert_eq!(http_get(&api, "/health/live").status, 200);
    assert_eq!(http_get(&api, "/api/v1/node").status, 404);
    eventually("it is said in the log", || server.log().contains("api.listen serves nothing but health"));
}
