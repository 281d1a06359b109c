//! Which reactor runs on which core.

use core_affinity::CoreId;

use super::ServeError;
use crate::config::{Config, Pin};

/// One entry a reactor: its core, or `None` where it is not pinned.
pub(super) fn assign(config: &Config) -> Result<Vec<Option<CoreId>>, ServeError> {
    assign_of(config, core_affinity::get_core_ids().unwrap_or_default())
}

/// The same, of the cores that the process may use.
fn assign_of(config: &Config, allowed: Vec<CoreId>) -> Result<Vec<Option<CoreId>>, ServeError> {
    let count = config.reactor_count(allowed.len());
    match &config.pin {
        Pin::Auto if count == allowed.len() => Ok(allowed.into_iter().map(Some).collect()),
        // Fewer reactors than cores: which of them are free only the scheduler knows, and two nodes would choose the
        // same. More: pinning would get in its way.
        Pin::Auto | Pin::None => Ok(vec![None; count]),
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

    /// The cores of reactors on a machine with cores 2, 3 and 5.
    fn assigned(reactors: usize, pin: Pin) -> Result<Vec<Option<usize>>, ServeError> {
        let allowed = [2, 3, 5].map(|id| CoreId { id }).to_vec();
        let cores = assign_of(&Config { reactors, pin, ..Config::default() }, allowed)?;
        Ok(cores.into_iter().map(|core| core.map(|core| core.id)).collect())
    }

    #[test]
    fn auto_pins_only_where_the_reactors_fill_all_cores() {
        assert_eq!(assigned(0, Pin::Auto).unwrap(), [Some(2), Some(3), Some(5)]);
        assert_eq!(assigned(3, Pin::Auto).unwrap(), [Some(2), Some(3), Some(5)]);
        assert_eq!(assigned(1, Pin::Auto).unwrap(), [None]);
        assert_eq!(assigned(2, Pin::Auto).unwrap(), [None; 2]);
        assert_eq!(assigned(4, Pin::Auto).unwrap(), [None; 4]);
    }

    #[test]
    fn cores_are_given_out_as_asked() {
        assert_eq!(assigned(0, Pin::None).unwrap(), [None; 3]);
        assert_eq!(assigned(0, Pin::Cores(vec![5, 2])).unwrap(), [Some(5), Some(2)]);
        assert_eq!(assigned(1, Pin::Cores(vec![5, 2])).unwrap(), [Some(5)]);
        assert!(matches!(assigned(0, Pin::Cores(vec![2, 4])), Err(ServeError::Core(4))));
    }
}
