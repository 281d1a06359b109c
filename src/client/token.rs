//! The token that a client brings.

use std::fmt::{self, Debug, Formatter};
use std::path::Path;
use std::str::FromStr;

use crate::config::read_at_most;

/// Longest token, in bytes. No server takes a longer one; the file of one may have an end of line on top.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What says who a client is; a JWT mostly. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token of `--token`, `--token-file` or the environment; a flag goes first.
    ///
    /// # Errors
    ///
    /// Where there are two flags, the file cannot be read, or what is there is no token.
    pub fn find(flag: Option<&str>, file: Option<&str>, env: Option<&str>) -> Result<Option<Token>, String> {
        match (flag, file, env) {
            (Some(_), Some(_), _) => {
                Err("--token and --token-file are two ways to give a token; give one of them".to_owned())
            }
            (Some(token), None, _) => token.parse().map(Some).map_err(|why| format!("--token: {why}")),
            (None, Some(path), _) => Token::read(path).map(Some).map_err(|why| format!("--token-file: {path:?} {why}")),
            // A variable that is set to nothing is not set.
            (None, None, Some("") | None) => Ok(None),
            (None, None, Some(token)) => token.parse().map(Some).map_err(|why| format!("FANFARE_TOKEN: {why}")),
        }
    }

    /// The token in a file.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or what is in it is no token.
    pub fn read(path: &str) -> Result<Token, String> {
        let bytes = read_at_most(Path::new(path), TOKEN_BYTES_MAX + 2)?;
        String::from_utf8(bytes).map_err(|_| "is not text".to_owned())?.trim_end_matches(['\r', '\n']).parse()
    }

    /// What is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text holds a part of it that is long enough to be of use.
    pub(super) fn is_told_by(&self, text: &str) -> bool {
        const PART_BYTES_MIN: usize = 8;
        let mut parts = self.0.split('.').filter(|part| part.len() >= PART_BYTES_MIN);
        text.contains(&self.0) || parts.any(|part| text.contains(part))
    }
}

impl FromStr for Token {
    type Err = String;

    /// The form that a request can carry (`b64token`, RFC 6750 §2.1).
    fn from_str(text: &str) -> Result<Token, String> {
        let is_of_a_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        match text.len() {
            0 => Err("is empty; leave it out where no token is needed".to_owned()),
            1..=TOKEN_BYTES_MAX if text.bytes().all(is_of_a_token) => Ok(Token(text.to_owned())),
            1..=TOKEN_BYTES_MAX => Err("has a character that no token has; is it a token?".to_owned()),
            _ => Err(format!("has more than {TOKEN_BYTES_MAX} bytes; is it a token?")),
        }
    }
}

impl Debug for Token {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_environment_and_nothing_is_nothing() {
        let found = |flag, env| Token::find(flag, None, env).map(|token| token.map(|token| token.0));
        assert_eq!(found(Some("a.b.c"), Some("d.e.f")), Ok(Some("a.b.c".to_owned())));
        assert_eq!(found(None, Some("d.e.f")), Ok(Some("d.e.f".to_owned())));
        assert_eq!(found(None, Some("")), Ok(None));
        assert_eq!(found(None, None), Ok(None));
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for text in ["a b", "secret\r\nHost: h", "secret\u{fc}", "\"secret\"", ""] {
            let why = Token::find(Some(text), None, None).unwrap_err();
            assert!(why.starts_with("--token: ") && !why.contains("secret"), "{why}");
        }
        let why = Token::find(None, None, Some(&"x".repeat(TOKEN_BYTES_MAX + 1))).unwrap_err();
        assert_eq!(why, "FANFARE_TOKEN: has more than 65536 bytes; is it a token?");
        assert_eq!(format!("{:?}", "secret".parse::<Token>().unwrap()), "Token(…)");
    }

    #[test]
    fn a_part_of_a_token_tells_it() {
        let token: Token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl".parse().unwrap();
        assert!(token.is_told_by("your token eyJzdWIiOiJhIn0 is bad") && !token.is_told_by("it has expired"));
        assert!("abc".parse::<Token>().unwrap().is_told_by("abc?"));
    }
}
