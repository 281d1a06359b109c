//! Sizes and durations as people write them: a number, perhaps a fraction, and a unit.

/// Units of size, largest of each family last; values in bytes.
const BYTE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Units of time; values in milliseconds.
const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuantityError {
    /// No number in front.
    Number,
    /// A unit that is not known, or a fraction without one.
    Unit,
    /// A fraction finer than one byte or one millisecond.
    TooFine,
    /// More than 64 bits hold.
    TooLarge,
}

/// Reads a size: `1MiB`, `64 KiB`, `1.5MB`, or a whole number of bytes. Case does not matter.
pub(super) fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    parse(text, |unit| find(BYTE_UNITS, |name| name.eq_ignore_ascii_case(unit)))
}

/// Reads a duration: `30s`, `500ms`, `1.5 h`, or a whole number of milliseconds.
pub(super) fn parse_millis(text: &str) -> Result<u64, QuantityError> {
    parse(text, |unit| find(TIME_UNITS, |name| name == unit))
}

/// The shortest exact form of a size, in powers of 1024: `1MiB`, `1500`.
pub(super) fn format_bytes(bytes: u64) -> String {
    match BYTE_UNITS.iter().rev().find(|(_, unit)| unit.is_power_of_two() && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) if bytes > 0 && *unit > 1 => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

/// The shortest exact form of a duration: `90s`, `1m`, `20ms`, `0s`.
pub(super) fn format_millis(millis: u64) -> String {
    match TIME_UNITS.iter().rev().find(|(_, unit)| millis.is_multiple_of(*unit)) {
        Some((name, unit)) if millis > 0 => format!("{}{name}", millis / unit),
        _ => "0s".to_owned(),
    }
}

fn find(units: &[(&str, u64)], is_it: impl Fn(&str) -> bool) -> Option<u64> {
    units.iter().find(|(name, _)| is_it(name)).map(|(_, value)| *value)
}

/// Exact decimal arithmetic: what is not whole is refused, never rounded.
fn parse(text: &str, unit_value: impl Fn(&str) -> Option<u64>) -> Result<u64, QuantityError> {
    let text = text.trim();
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..number_end], text[number_end..].trim_start());
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((_, fraction)) if fraction.is_empty() || fraction.contains('.') => {
            return Err(QuantityError::Number);
        }
        Some(parts) => parts,
    };
    if whole.is_empty() {
        return Err(QuantityError::Number);
    }
    let unit = match unit {
        "" if fraction.is_empty() => 1,
        unit => unit_value(unit).ok_or(QuantityError::Unit)?,
    };
    let whole: u64 = whole.parse().map_err(|_| QuantityError::TooLarge)?;
    let part = parse_fraction(fraction.trim_end_matches('0'), unit)?;
    whole.checked_mul(unit).and_then(|value| value.checked_add(part)).ok_or(QuantityError::TooLarge)
}

/// `digits` behind the point, in units of `unit`.
fn parse_fraction(digits: &str, unit: u64) -> Result<u64, QuantityError> {
    if digits.is_empty() {
        return Ok(0);
    }
    // No unit is divisible by more tens than this, so more digits cannot come out whole.
    const DIGITS_MAX: usize = 30;
    if digits.len() > DIGITS_MAX {
        return Err(QuantityError::TooFine);
    }
    let scale = u32::try_from(digits.len()).ok().and_then(|exponent| 10_u128.checked_pow(exponent));
    let scaled = digits.parse::<u128>().ok().and_then(|number| number.checked_mul(u128::from(unit)));
    match (scaled, scale) {
        (Some(scaled), Some(scale)) if scaled % scale == 0 => {
            u64::try_from(scaled / scale).map_err(|_| QuantityError::TooLarge)
        }
        _ => Err(QuantityError::TooFine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("4096", 4096),
            ("10B", 10),
            ("1KiB", 1024),
            ("64 KiB", 65_536),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("1KB", 1_000),
            ("1kB", 1_000),
            ("1MB", 1_000_000),
            ("3GB", 3_000_000_000),
            ("1mib", 1 << 20),
            ("1.5KiB", 1536),
            ("0.50MB", 500_000),
            (" 8KiB ", 8192),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, millis) in [
            ("0", 0),
            ("250", 250),
            ("500ms", 500),
            ("30s", 30_000),
            ("30d", 2_592_000_000),
            ("1.5d", 129_600_000),
            ("10 s", 10_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("0.5s", 500),
            ("1.5h", 5_400_000),
            ("0.001s", 1),
            ("2.000ms", 2),
        ] {
            assert_eq!(parse_millis(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for (text, error) in [
            ("", QuantityError::Number),
            ("s", QuantityError::Number),
            ("-1s", QuantityError::Number),
            (".5s", QuantityError::Number),
            ("1.s", QuantityError::Number),
            ("1.2.3s", QuantityError::Number),
            ("1.5", QuantityError::Unit),
            ("1S", QuantityError::Unit),
            ("1m30s", QuantityError::Unit),
            ("5 parsecs", QuantityError::Unit),
            ("1e3s", QuantityError::Unit),
            ("1.5ms", QuantityError::TooFine),
            ("0.0001s", QuantityError::TooFine),
            ("0.0000000000000000000000000000000000001h", QuantityError::TooFine),
            ("18446744073709551616", QuantityError::TooLarge),
            ("18446744073709551615h", QuantityError::TooLarge),
        ] {
            assert_eq!(parse_millis(text), Err(error), "{text}");
        }
        assert_eq!(parse_bytes("0.3KiB"), Err(QuantityError::TooFine));
        assert_eq!(parse_bytes("1TiB"), Err(QuantityError::Unit));
    }

    #[test]
    fn the_shortest_form_is_written() {
        for (bytes, text) in
            [(0, "0"), (1, "1"), (1000, "1000"), (1024, "1KiB"), (1536, "1536"), (1 << 20, "1MiB"), (5 << 30, "5GiB")]
        {
            assert_eq!(format_bytes(bytes), text);
        }
        for (millis, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1500ms"),
            (90_000, "90s"),
            (60_000, "1m"),
            (3_600_000, "1h"),
            (129_600_000, "36h"),
            (2_592_000_000, "30d"),
        ] {
            assert_eq!(format_millis(millis), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(number: u64) {
            prop_assert_eq!(parse_bytes(&format_bytes(number)), Ok(number));
            prop_assert_eq!(parse_millis(&format_millis(number)), Ok(number));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse_bytes(&text);
            let _ = parse_millis(&text);
        }

        #[test]
        fn fractions_are_exact(whole in 0_u64..1000, thousandths in 0_u64..1000) {
            prop_assert_eq!(parse_millis(&format!("{whole}.{thousandths:03}s")), Ok(whole * 1000 + thousandths));
        }
    }
}
