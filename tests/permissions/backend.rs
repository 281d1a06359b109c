//! A backend that says of each connection what its token says, and of each join what a rule does: so the same answers are
//! right with it as without it, whenever the dice let it answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use fanfare::auth::{Question, texts};
use fanfare::reactor::{Backend, Inquiry, KeysWanted, PostOffice, Ticket};
use serde_json::{Value, json};

/// Questions that are not answered yet. Clones are the same backend.
#[derive(Clone, Debug, Default)]
pub struct SimBackend(Arc<Mutex<VecDeque<Inquiry>>>);

impl Backend for SimBackend {
    // It answers those who are gone as well: late is harmless.
    fn ask(&self, inquiry: Inquiry) -> Option<Ticket> {
        self.0.lock().unwrap().push_back(inquiry);
        Some(Ticket::new(()))
    }

    fn want_keys(&self, wanted: KeysWanted) {
        panic!("{wanted:?}: no keys are fetched");
    }
}

/// Whether this user may join this room, where the backend decides.
pub fn may_join(user: usize, room: usize) -> bool {
    !(user + room).is_multiple_of(3)
}

impl SimBackend {
    /// Answers one of the questions, if there is one: what it was about.
    pub fn answer_one(&self, post: &PostOffice, pick: impl FnOnce(usize) -> usize) -> Option<&'static str> {
        let inquiry = {
            let mut waiting = self.0.lock().unwrap();
            let at = if waiting.is_empty() { return None } else { pick(waiting.len()) };
            waiting.remove(at).expect("it is one of them")
        };
        let (body, about) = match &inquiry.question {
            Question::Connect(_) => {
                let token = inquiry.token.as_ref().expect("everybody has a token");
                (as_the_token_says(&token.0), "a connection was decided about")
            }
            Question::Join { .. } => (by_rule(&inquiry.question), "a join was decided about"),
        };
        let decision = inquiry.question.read(&inquiry.auth, 200, body.to_string().as_bytes());
        post.decided(inquiry.asker, decision.unwrap_or_else(|fault| panic!("{body}: {fault}")));
        Some(about)
    }
}

fn as_the_token_says(token: &str) -> Value {
    let (_, claims) = texts(token).unwrap();
    let claims: Value = serde_json::from_str(&claims).unwrap();
    let expires_ms = (claims["exp"].as_f64().unwrap() * 1_000.0) as u64;
    json!({"user": claims["sub"], "fanfare": claims["fanfare"], "expires": expires_ms})
}

fn by_rule(question: &Question) -> Value {
    let asked: Value = serde_json::from_slice(&question.body()).unwrap();
    let number = |text: &Value| text.as_str().unwrap()[1..].parse::<usize>().unwrap();
    let user = number(&asked["user"]);
    match &asked["roomIds"] {
        Value::Array(rooms) => {
            let allowed: Vec<&Value> = rooms.iter().filter(|room| may_join(user, number(room))).collect();
            json!({ "allow": allowed })
        }
        _ => json!({ "allow": may_join(user, number(&asked["roomId"])) }),
    }
}
