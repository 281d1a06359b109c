//! A value that another may take the place of while threads use it: keys, certificates, what is read again.
//!
//! Imports nothing.

use std::sync::{Arc, PoisonError, RwLock};

/// What is in force, until another takes its place. Clones are the same.
#[derive(Debug, Default)]
pub struct Current<T>(Arc<RwLock<Arc<T>>>);

impl<T> Current<T> {
    /// In force from now on.
    pub fn new(value: T) -> Current<T> {
        Current(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// What is in force now. Who looks once for a request or a connection sees all of the old or all of the new.
    pub fn get(&self) -> Arc<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another takes its place.
    pub fn replace(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Current<T> {
        Current(self.0.clone())
    }
}
