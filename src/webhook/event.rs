//! What receivers are told: a room has become occupied or vacant, a user online or offline.

use std::sync::Arc;

use arcstr::ArcStr;
use serde::Serialize;

use crate::router::Kind;

/// A room, a raw room or a user: what events are about, and what their order is kept for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    kind: SubjectKind,
    name: ArcStr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum SubjectKind {
    Room,
    Raw,
    User,
}

impl SubjectKind {
    const ALL: [(char, SubjectKind); 3] = [('r', SubjectKind::Room), ('w', SubjectKind::Raw), ('u', SubjectKind::User)];
}

/// The words for events, as the wire and the configuration say them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventName {
    /// A room has its first member.
    RoomOccupied,
    /// A room has lost its last member.
    RoomVacated,
    /// A user has the first connection.
    UserOnline,
    /// A user has lost the last connection.
    UserOffline,
}

impl EventName {
    /// All of them, with their words.
    pub const ALL: [(&'static str, EventName); 4] = [
        ("room_occupied", EventName::RoomOccupied),
        ("room_vacated", EventName::RoomVacated),
        ("user_online", EventName::UserOnline),
        ("user_offline", EventName::UserOffline),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        let (word, _) = EventName::ALL[self as usize];
        word
    }
}

impl Subject {
    /// What a topic is as a subject; `None` of everyone.
    pub fn of_topic(kind: Kind, name: &ArcStr) -> Option<Subject> {
        let kind = match kind {
            Kind::Room => SubjectKind::Room,
            Kind::Raw => SubjectKind::Raw,
            Kind::Inbox => SubjectKind::User,
            Kind::Everyone => return None,
        };
        Some(Subject { kind, name: name.clone() })
    }

    /// The user it is, if it is one.
    pub fn user(&self) -> Option<&str> {
        match self.kind {
            SubjectKind::User => Some(&self.name),
            SubjectKind::Room | SubjectKind::Raw => None,
        }
    }

    /// The room as events and patterns name it (`raw/ROOM` of a raw room), if it is one.
    pub fn room(&self) -> Option<ArcStr> {
        match self.kind {
            SubjectKind::Room => Some(self.name.clone()),
            SubjectKind::Raw => Some(format!("raw/{}", self.name).into()),
            SubjectKind::User => None,
        }
    }

    /// A text that no other subject has: as Redis and the journal keep it.
    pub fn encode(&self) -> String {
        let letter = SubjectKind::ALL.iter().find(|(_, kind)| *kind == self.kind).map_or('r', |(letter, _)| *letter);
        format!("{letter}{}", self.name)
    }

    /// Reads such a text.
    pub fn decode(text: &str) -> Option<Subject> {
        let letter = text.chars().next()?;
        let (_, kind) = SubjectKind::ALL.iter().find(|(known, _)| *known == letter)?;
        Some(Subject { kind: *kind, name: text[letter.len_utf8()..].into() })
    }

    /// Which event it is where the subject turns present or absent.
    pub fn event_name(&self, is_present: bool) -> EventName {
        match (self.kind, is_present) {
            (SubjectKind::Room | SubjectKind::Raw, true) => EventName::RoomOccupied,
            (SubjectKind::Room | SubjectKind::Raw, false) => EventName::RoomVacated,
            (SubjectKind::User, true) => EventName::UserOnline,
            (SubjectKind::User, false) => EventName::UserOffline,
        }
    }

    /// Bytes that it takes, for bounds.
    pub fn bytes(&self) -> usize {
        self.name.len() + size_of::<Subject>()
    }
}

/// What is told of one edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it stands among all events of this node, or of the cluster; no two have the same.
    pub number: u64,
    /// What receivers know doubles by.
    pub id: Arc<str>,
    /// What it is about.
    pub subject: Subject,
    /// Whether the subject has become present.
    pub is_present: bool,
}

impl Event {
    /// Which event it is.
    pub fn name(&self) -> EventName {
        self.subject.event_name(self.is_present)
    }
}

/// The body of a request: the events of a batch as receivers read them.
pub fn body(time_unix_ms: u64, node: &str, events: &[Arc<Event>]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        time: u64,
        node: &'a str,
        events: Vec<Told<'a>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Told<'a> {
        id: &'a str,
        event: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        room_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<&'a str>,
    }
    let told = events.iter().map(|event| Told {
        id: &event.id,
        event: event.name().as_str(),
        room_id: event.subject.room().map(|room| room.to_string()),
        user_id: event.subject.user(),
    });
    let body = Body { time: time_unix_ms, node, events: told.collect() };
    serde_json::to_vec(&body).expect("numbers and texts can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, name: &str, is_present: bool) -> Arc<Event> {
        let subject = Subject::of_topic(kind, &name.into()).expect("a subject");
        Arc::new(Event { number: 1, id: "a-1".into(), subject, is_present })
    }

    #[test]
    fn a_body_names_rooms_raw_rooms_and_users() {
        let events = [
            event(Kind::Room, "a\"b", true),
            event(Kind::Raw, "den", false),
            event(Kind::Inbox, "alice", true),
            event(Kind::Inbox, "alice", false),
        ];
        let text = String::from_utf8(body(7, "n", &events)).unwrap();
        assert_eq!(
            text,
            r#"{"time":7,"node":"n","events":[{"id":"a-1","event":"room_occupied","roomId":"a\"b"},{"id":"a-1","event":"room_vacated","roomId":"raw/den"},{"id":"a-1","event":"user_online","userId":"alice"},{"id":"a-1","event":"user_offline","userId":"alice"}]}"#
        );
    }

    #[test]
    fn subjects_are_told_apart_and_read_again() {
        let subjects: Vec<Subject> = [(Kind::Room, "x"), (Kind::Raw, "x"), (Kind::Inbox, "x"), (Kind::Room, "raw/x")]
            .into_iter()
            .filter_map(|(kind, name)| Subject::of_topic(kind, &name.into()))
            .collect();
        let texts: std::collections::HashSet<String> = subjects.iter().map(Subject::encode).collect();
        assert_eq!(texts.len(), subjects.len());
        for subject in &subjects {
            assert_eq!(Subject::decode(&subject.encode()).as_ref(), Some(subject));
        }
        assert_eq!((Subject::decode(""), Subject::decode("qx")), (None, None));
        assert_eq!(Subject::of_topic(Kind::Everyone, &"".into()), None);
    }

    #[test]
    fn each_name_has_its_word() {
        for (word, name) in EventName::ALL {
            assert_eq!(name.as_str(), word);
        }
    }
}
