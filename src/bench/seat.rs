//! Who connects, and with what.

use super::dialect::StreamPosition;

/// Who sits at a connection.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// The user id: plain letters and digits.
    pub(super) user: String,
    /// Rooms that it asks to join as it enters: plain letters and digits. It counts as open when the first is joined.
    pub(super) rooms: Vec<String>,
    /// Whether it offers permessage-deflate, and insists on it.
    pub(super) deflate: bool,
    /// The node it connects to: 0 is the one that is measured, then the others that the options name.
    pub(super) node: usize,
    /// Where it stood in its only room when it was here before.
    pub(super) since: Option<StreamPosition>,
    /// Further fields of its join of its only room, as JSON behind a comma each.
    pub(super) join_fields: String,
    /// Whether nothing but its own messages comes: it is open once it is upgraded.
    pub(super) is_echo: bool,
}

impl Seat {
    /// Of one who comes for the first time, to the server that is measured, and offers no compression.
    pub(super) fn new(user: String, rooms: Vec<String>) -> Seat {
        Seat { user, rooms, deflate: false, node: 0, since: None, join_fields: String::new(), is_echo: false }
    }

    /// The same at an echo.
    pub(super) fn of_echo(self) -> Seat {
        Seat { is_echo: true, ..self }
    }

    /// The same, offering compression or not.
    pub(super) fn offering(self, deflate: bool) -> Seat {
        Seat { deflate, ..self }
    }
}

/// The name of a room of the load, by its number.
pub(super) fn room_name(room: usize) -> String {
    format!("r{room:06}")
}
