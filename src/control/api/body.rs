//! Bodies of requests: of the right type, and bounded in bytes, in time and together.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Request};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::sync::SemaphorePermit;

use super::error::Code;
use super::{Api, ApiError};
use crate::limits::API_BODY_MS_MAX;
use crate::protocol::ErrorCode;

/// What a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON value.
    Json,
    /// One JSON value a line.
    Ndjson,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
        }
    }
}

/// A whole body. It counts as long as it is there.
pub(super) struct Whole<'a> {
    pub(super) bytes: Bytes,
    pub(super) format: Format,
    _counted: SemaphorePermit<'a>,
}

impl Api {
    /// Reads a body in one of these formats. One without a type is in the first.
    ///
    /// # Errors
    /// 415, 413, 408; 429 where the bodies of all requests would hold too much.
    pub(super) async fn read(&self, request: Request<Body>, formats: &'static [Format]) -> Result<Whole<'_>, ApiError> {
        let (parts, body) = request.into_parts();
        let format = format_of(&parts.headers, formats)?;
        let announced = body.size_hint().exact();
        if announced.is_some_and(|bytes| bytes > self.settings.body_bytes_max as u64) {
            return Err(self.too_large());
        }
        let mut counted = self.count(announced.unwrap_or(0) as usize)?;
        let mut gathering = Box::pin(self.gather(body, announced, &mut counted));
        // Most bodies are there already: these need no timer.
        let bytes = match gathering.as_mut().now_or_never() {
            Some(gathered) => gathered?,
            None => match tokio::time::timeout(Duration::from_millis(API_BODY_MS_MAX), gathering.as_mut()).await {
                Ok(gathered) => gathered?,
                Err(_) => return Err(ApiError::new(Code::Timeout, "the body took too long to come in")),
            },
        };
        drop(gathering);
        Ok(Whole { bytes, format, _counted: counted })
    }

    async fn gather<'a>(
        &'a self,
        mut body: Body,
        announced: Option<u64>,
        counted: &mut SemaphorePermit<'a>,
    ) -> Result<Bytes, ApiError> {
        let (mut first, mut all) = (Bytes::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::wire(ErrorCode::BadJson, "the body ends too early"))?;
            let Ok(data) = frame.into_data() else { continue };
            let bytes = first.len() + all.len() + data.len();
            if bytes > self.settings.body_bytes_max {
                return Err(self.too_large());
            }
            if announced.is_none() {
                counted.merge(self.count(data.len())?);
            }
            // One in one piece is not copied.
            match first.is_empty() && all.is_empty() {
                true => first = data,
                false => {
                    if all.is_empty() {
                        all.reserve(announced.map_or(bytes, |bytes| bytes as usize));
                        all.extend_from_slice(&std::mem::take(&mut first));
                    }
                    all.extend_from_slice(&data);
                }
            }
        }
        Ok(if all.is_empty() { first } else { all.into() })
    }

    fn count(&self, bytes: usize) -> Result<SemaphorePermit<'_>, ApiError> {
        self.bodies.try_acquire_many(bytes as u32).map_err(|_| ApiError::busy())
    }

    fn too_large(&self) -> ApiError {
        let message = format!("the body is larger than {} bytes: send less at once", self.settings.body_bytes_max);
        ApiError::new(Code::TooLarge, message)
    }
}

/// Which of these formats a body is in, as its type says.
fn format_of(headers: &HeaderMap, formats: &'static [Format]) -> Result<Format, ApiError> {
    let Some(said) = headers.get(CONTENT_TYPE) else { return Ok(formats[0]) };
    let said = said.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let said = |format: &&Format| said.eq_ignore_ascii_case(format.media_type().as_bytes());
    formats.iter().find(said).copied().ok_or_else(|| {
        let known: Vec<&str> = formats.iter().map(|format| format.media_type()).collect();
        ApiError::new(Code::UnsupportedMediaType, format!("send Content-Type: {}", known.join(" or ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_body_is_what_stands_before_its_parameters() {
        const BOTH: &[Format] = &[Format::Json, Format::Ndjson];
        let of = |text: &str| format_of(&HeaderMap::from_iter([(CONTENT_TYPE, text.parse().unwrap())]), BOTH);
        for text in ["application/json", "Application/JSON ; charset=utf-8", "application/json;"] {
            assert_eq!(of(text), Ok(Format::Json), "{text}");
        }
        assert_eq!(of("application/x-ndjson"), Ok(Format::Ndjson));
        assert_eq!(format_of(&HeaderMap::new(), BOTH), Ok(Format::Json));
        for text in ["text/plain", "", "application/jsonx", "application/x-www-form-urlencoded"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
