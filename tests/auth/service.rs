//! A service of the team's own, played by the test: it keeps what it was asked, and answers as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use fanfare_testing::eventually;
use serde_json::Value;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    /// `Null` where there was none.
    pub body: Value,
}

impl Seen {
    /// The values of a header field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// What a request is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A status and a JSON body.
    Json(u16, Value),
    /// The same, once [`Service::let_go`] was called.
    Held(u16, Value),
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// A body without an end, as long as it is read.
    Endless,
    /// Nothing.
    Silence,
}

type Behaviour = Box<dyn Fn(&Seen) -> Reply + Send + Sync>;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    behaviour: Mutex<Arc<Behaviour>>,
    is_let_go: Mutex<bool>,
    news: Condvar,
}

/// See the module's documentation. Its threads end with the test's process.
pub struct Service {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Service {
    pub fn start(behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Service {
        Service::at(TcpListener::bind("127.0.0.1:0").unwrap(), behaviour)
    }

    pub fn at(listener: TcpListener, behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Service {
        let addr = listener.local_addr().unwrap();
        let behaviour = Mutex::new(Arc::new(Box::new(behaviour) as Behaviour));
        let shared =
            Arc::new(Shared { seen: Mutex::default(), behaviour, is_let_go: Mutex::new(false), news: Condvar::new() });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = serving.clone();
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        Service { addr, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// From now on requests are answered so.
    pub fn behave(&self, behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.shared.behaviour.lock().unwrap() = Arc::new(Box::new(behaviour));
    }

    /// What was held is answered, and nothing is held any more.
    pub fn let_go(&self) {
        *self.shared.is_let_go.lock().unwrap() = true;
        self.shared.news.notify_all();
    }

    /// What has come so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request has come")
    }

    #[track_caller]
    pub fn await_count(&self, count: usize) {
        eventually("the service is asked", || self.count() >= count);
        assert_eq!(self.count(), count);
    }
}

/// Answers the requests of one connection, until it ends or is broken off.
fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(seen) = read_request(&mut reader) {
        let behaviour = shared.behaviour.lock().unwrap().clone();
        shared.seen.lock().unwrap().push(seen.clone());
        let (status, body) = match behaviour(&seen) {
            Reply::Json(status, body) => (status, body),
            Reply::Held(status, body) => {
                let held = shared.is_let_go.lock().unwrap();
                drop(shared.news.wait_while(held, |is_let_go| !*is_let_go).unwrap());
                (status, body)
            }
            Reply::Bytes(bytes) => {
                let _ = writer.write_all(&bytes);
                return;
            }
            Reply::Endless => {
                let _ = writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n[");
                while writer.write_all(&[b' '; 16 * 1024]).is_ok() {}
                return;
            }
            Reply::Silence => {
                // Until the other side gives up.
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        if writer.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => fields.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut seen = Seen { method, path, fields, body: Value::Null };
    let length = seen.all("content-length").first().map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    if length > 0 {
        seen.body = serde_json::from_slice(&body).expect("the body is JSON");
    }
    Some(seen)
}
