//! A receiver of events, played by the test: it checks each signature, keeps what came, and answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use ring::hmac;
use serde_json::Value;

pub const SECRET: &str = "a secret of webhooks that nobody guesses";

/// How long events are waited for that another node has to tell.
const PATIENCE: Duration = Duration::from_secs(40);

/// A request that came.
#[derive(Clone, Debug)]
pub struct Came {
    /// `t` of its signature.
    pub time: u64,
    /// The body, as it came.
    pub body: String,
    /// Whether it was answered with 2xx.
    pub is_taken: bool,
}

impl Came {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a body is JSON")
    }

    /// Its events, as `room_occupied den`.
    pub fn events(&self) -> Vec<String> {
        self.raw_events().iter().map(words).collect()
    }

    fn raw_events(&self) -> Vec<Value> {
        self.json()["events"].as_array().expect("a list of events").clone()
    }
}

fn words(event: &Value) -> String {
    let name = event.get("roomId").or(event.get("userId")).and_then(Value::as_str).expect("a room or a user");
    format!("{} {name}", event["event"].as_str().expect("a name"))
}

/// What a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    /// A redirect to the receiver itself.
    Elsewhere,
    /// Nothing.
    Silence,
}

type Behaviour = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

struct Shared {
    secret: Mutex<String>,
    came: Mutex<Vec<Came>>,
    behaviour: Mutex<Behaviour>,
    news: Condvar,
    addr: SocketAddr,
}

/// See the module's documentation. Its threads end with the test's process.
#[derive(Clone)]
pub struct Receiver(Arc<Shared>);

impl Receiver {
    /// One that takes everything.
    pub fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let behaviour: Mutex<Behaviour> = Mutex::new(Arc::new(|_: &str| Reply::Status(204)));
        let addr = listener.local_addr().expect("it is bound");
        let secret = Mutex::new(SECRET.to_owned());
        let shared = Arc::new(Shared { secret, came: Mutex::default(), behaviour, news: Condvar::new(), addr });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = serving.clone();
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        Receiver(shared)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// The value of `--webhook`, but for the secret.
    pub fn entry(&self) -> String {
        format!("url=http://{}/hook", self.0.addr)
    }

    /// From now on requests are answered so, by their bodies.
    pub fn behave(&self, behaviour: impl Fn(&str) -> Reply + Send + Sync + 'static) {
        *self.0.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// From now on this is the secret.
    pub fn agree_on(&self, secret: &str) {
        secret.clone_into(&mut self.0.secret.lock().unwrap());
    }

    /// All that has come.
    pub fn came(&self) -> Vec<Came> {
        self.0.came.lock().unwrap().clone()
    }

    /// Events that it has taken, each id once, in the order in which they came first.
    pub fn events(&self) -> Vec<String> {
        let mut ids = std::collections::HashSet::new();
        let came = self.0.came.lock().unwrap();
        let taken = came.iter().filter(|came| came.is_taken).flat_map(Came::raw_events);
        let fresh = taken.filter(|event| ids.insert(event["id"].as_str().expect("an id").to_owned()));
        fresh.map(|event| words(&event)).collect()
    }

    /// Waits until it has taken this event; then all that it has taken.
    #[track_caller]
    pub fn until(&self, event: &str) -> Vec<String> {
        self.wait(event, |events| events.iter().any(|found| found == event))
    }

    /// Waits until it has taken exactly these events, in any order; not more.
    #[track_caller]
    pub fn until_all(&self, expected: &[&str]) {
        let events = self.wait(&format!("{expected:?}"), |events| events.len() >= expected.len());
        assert_eq!(sorted(events), sorted(expected.iter().map(ToString::to_string).collect()));
    }

    /// Waits until so many requests have come.
    #[track_caller]
    pub fn until_came(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.came().len() < count {
            assert!(Instant::now() < deadline, "{} of {count} requests: {:?}", self.came().len(), self.came());
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn wait(&self, what: &str, is_done: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = self.events();
            if is_done(&events) {
                return events;
            }
            assert!(Instant::now() < deadline, "{what} has not come, but {events:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

pub fn sorted(mut events: Vec<String>) -> Vec<String> {
    events.sort();
    events
}

fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some((time, body)) = read_request(&mut reader, shared) {
        let behaviour = shared.behaviour.lock().unwrap().clone();
        let reply = behaviour(&body);
        let is_taken = matches!(reply, Reply::Status(200..300));
        shared.came.lock().unwrap().push(Came { time, body, is_taken });
        shared.news.notify_all();
        let head = match reply {
            Reply::Status(status) => format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"),
            Reply::Elsewhere => {
                format!("HTTP/1.1 307 X\r\nLocation: http://{}/else\r\nContent-Length: 0\r\n\r\n", shared.addr)
            }
            Reply::Silence => {
                // Until the other side gives up.
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        if writer.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

/// A request's time and body, if its signature is good.
fn read_request(reader: &mut impl BufRead, shared: &Shared) -> Option<(u64, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    assert_eq!(line.trim_end(), "POST /hook HTTP/1.1", "the configured place, and no other");
    let (mut length, mut signature) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("a length"),
            "x-fanfare-signature" => value.clone_into(&mut signature),
            "content-type" => assert_eq!(value, "application/json"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).expect("a body is text");
    let (time, tag) =
        signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).expect("a signature of two parts");
    let secret = shared.secret.lock().unwrap().clone();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = HEXLOWER.decode(tag.as_bytes()).expect("hex");
    hmac::verify(&key, format!("{time}.{body}").as_bytes(), &tag).expect("the signature is good");
    Some((time.parse().expect("milliseconds"), body))
}
