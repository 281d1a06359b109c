//! Places for questions, of which handshakes leave a share to open connections: strangers, however many they are, hold up
//! nobody who is in already.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Of so many places one is never a handshake's.
const PLACES_PER_RESERVED: usize = 4;

/// See the module's documentation. Who waits for a place gets it in the order of asking, among handshakes and among the
/// others.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    // First: who is open and waits for it comes before the next handshake.
    _of_all: OwnedSemaphorePermit,
    _of_handshakes: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// So many places. A quarter of them is for open connections alone; of fewer than four none is.
    pub(super) fn new(count: usize) -> Places {
        let handshakes = count - count / PLACES_PER_RESERVED;
        Places { all: Arc::new(Semaphore::new(count)), handshakes: Arc::new(Semaphore::new(handshakes)) }
    }

    /// A place, if there is one now.
    pub(super) fn try_take(&self, is_open: bool) -> Option<Place> {
        let of_handshakes = match is_open {
            true => None,
            false => Some(self.handshakes.clone().try_acquire_owned().ok()?),
        };
        Some(Place { _of_all: self.all.clone().try_acquire_owned().ok()?, _of_handshakes: of_handshakes })
    }

    /// A place, once there is one.
    pub(super) async fn take(&self, is_open: bool) -> Place {
        let of_handshakes = if is_open { None } else { Some(permit(&self.handshakes).await) };
        Place { _of_all: permit(&self.all).await, _of_handshakes: of_handshakes }
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_owned().await.expect("places are never closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_leave_a_quarter_to_who_is_open() {
        for (count, of_handshakes) in [(1, 1), (3, 3), (4, 3), (64, 48)] {
            let places = Places::new(count);
            let taken: Vec<Place> = std::iter::from_fn(|| places.try_take(false)).collect();
            let open: Vec<Place> = std::iter::from_fn(|| places.try_take(true)).collect();
            assert_eq!((taken.len(), open.len()), (of_handshakes, count - of_handshakes));
            drop(taken);
            let again: Vec<Place> = std::iter::from_fn(|| places.try_take(true)).collect();
            assert_eq!((again.len(), open.len()), (of_handshakes, count - of_handshakes), "each is given back");
        }
    }
}
