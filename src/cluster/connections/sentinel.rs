//! Which server is the primary: asked of the Sentinels, and whether it is, of the server itself.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{ConnectionAddr, ErrorKind, RedisError, TlsMode};

use super::{Redis, reason};
use crate::config::{RedisAddress, RedisKind};
use crate::limits::CLUSTER_CANARY_MS;

impl Redis {
    /// The primary that works.
    pub(super) async fn named_by_sentinels(&self) -> Result<ConnectionAddr, String> {
        let mut asked = self.ask(false).await;
        if self.may_sign_in(&asked) {
            asked = self.ask(true).await;
        }
        asked.map_err(|error| match error.kind() {
            ErrorKind::MasterNameNotFoundBySentinel => "none knows a primary of this name that works".to_owned(),
            _ => format!("they, or the primary that they name: {}", reason(&error)),
        })
    }

    /// Waits until they name another primary than this one; what to say then. The old one need not know of it yet.
    pub(super) async fn replaced(&self, primary: &str) -> String {
        let mut sentinel: Option<MultiplexedConnection> = None;
        loop {
            tokio::time::sleep(Duration::from_millis(CLUSTER_CANARY_MS)).await;
            match &mut sentinel {
                None => sentinel = self.sentinel().await.ok(),
                Some(connection) => match self.named_by(connection).await {
                    Ok(named) if named != primary => return format!("the Sentinels name another primary: {named}"),
                    Ok(_) => {}
                    Err(_) => sentinel = None,
                },
            }
        }
    }

    async fn ask(&self, signed_in: bool) -> Result<ConnectionAddr, RedisError> {
        let client = self.sentinels(signed_in)?.async_get_client().await?;
        Ok(client.get_connection_info().addr().clone())
    }

    /// A connection to one of them.
    async fn sentinel(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut asked = self.sentinels(false)?.async_get_sentinel_client().await;
        if self.may_sign_in(&asked) {
            asked = self.sentinels(true)?.async_get_sentinel_client().await;
        }
        asked?.get_multiplexed_async_connection().await
    }

    async fn named_by(&self, sentinel: &mut MultiplexedConnection) -> Result<String, RedisError> {
        let RedisKind::Sentinel { name, .. } = &self.address.kind else { return Ok(String::new()) };
        let mut question = redis::cmd("SENTINEL");
        let (host, port): (String, u16) =
            question.arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(sentinel).await?;
        Ok(ConnectionAddr::Tcp(host, port).to_string())
    }

    /// Those that want a password get the one of the servers, but only when they want one.
    fn may_sign_in<T>(&self, asked: &Result<T, RedisError>) -> bool {
        let wants = |error: &RedisError| {
            matches!(error.code(), Some("NOAUTH" | "NOPERM")) || error.kind() == ErrorKind::AuthenticationFailed
        };
        self.address.password.is_some() && asked.as_ref().is_err_and(wants)
    }

    /// The Sentinels, and how to ask the servers that they name.
    fn sentinels(&self, signed_in: bool) -> Result<SentinelClient, RedisError> {
        let RedisAddress { kind, tls, user, password, .. } = &self.address;
        let RedisKind::Sentinel { sentinels, tls: tls_there, name } = kind else {
            return Err((ErrorKind::InvalidClientConfig, "there are no Sentinels").into());
        };
        let addrs = sentinels.iter().map(|sentinel| match tls_there {
            true => self.addr(sentinel),
            false => ConnectionAddr::Tcp(sentinel.name.clone(), sentinel.port),
        });
        let mut builder = SentinelClientBuilder::new(addrs, name, SentinelServerType::Master)?;
        if *tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(authority) = &self.authority {
            builder = builder.set_client_to_redis_certificates(authority.certificates.clone());
        }
        if let Some(user) = user {
            builder = builder.set_client_to_redis_username(user);
            if signed_in {
                builder = builder.set_client_to_sentinel_username(user);
            }
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password);
            if signed_in {
                builder = builder.set_client_to_sentinel_password(password);
            }
        }
        builder.build()
    }
}
