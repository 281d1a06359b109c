//! Which reactor runs on which core.

use core_affinity::CoreId;

use super::ServeError;
use crate::config::{Config, Pin};

/// One entry a reactor: its core, or `None` where it is not pinned.
pub(super) fn assign(config: &Config) -> Result<Vec<Option<CoreId>>, ServeError> {
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let count = config.reactor_count(allowed.len());
    match &config.pin {
        Pin::None => Ok(vec![None; count]),
        // More reactors than cores: pinning would only get in the scheduler's way.
        Pin::Auto if count > allowed.len() => Ok(vec![None; count]),
        Pin::Auto => Ok(allowed.into_iter().take(count).map(Some).collect()),
        Pin::Cores(cores) => {
            let find = |core: &usize| match allowed.iter().find(|allowed| allowed.id == *core) {
                Some(found) => Ok(Some(*found)),
                None => Err(ServeError::Core(*core)),
            };
            cores.iter().take(count).map(find).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(reactors: usize, pin: Pin) -> Result<Vec<Option<CoreId>>, ServeError> {
        assign(&Config { reactors, pin, ..Config::default() })
    }

    #[test]
    fn cores_are_given_out_as_asked() {
        assert_eq!(assigned(3, Pin::None).unwrap(), [None, None, None]);
        let one = assigned(1, Pin::Auto).unwrap();
        assert_eq!(one.len(), 1);
        let first = one[0].expect("there is a core").id;
        assert_eq!(assigned(0, Pin::Cores(vec![first])).unwrap(), one);
        assert!(matches!(assigned(0, Pin::Cores(vec![100_000])), Err(ServeError::Core(100_000))));
        assert!(assigned(256, Pin::Auto).unwrap().iter().all(Option::is_none));
    }
}
