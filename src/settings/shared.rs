//! The section `limits.shared`, checked and compiled.

use std::fmt;
use std::time::Duration;

use hkdf::Hkdf;
use sha2::Sha256;

use super::raw::{self, SharedOnError};
use super::{Lives, Problem, SettingsError, Surroundings, read_secret, secret};
use crate::store::Secret;

/// The Redis through which gateways share their limits.
#[derive(Debug)]
pub struct SharedLimits {
    /// Envoy's cluster.
    pub cluster: String,
    /// Gateways with the same one share.
    pub namespace: String,
    /// What is sent first in each connection.
    pub login: Option<Login>,
    /// How long a request waits for Redis, and a connection that is made for it lives.
    pub timeout: Duration,
    /// What holds while Redis does not answer.
    pub on_error: SharedOnError,
    /// What clients and ids are hashed with, the same in all gateways that have the same key.
    pub secret: Secret,
}

/// The user of Redis. `Debug` does not show the password.
pub struct Login {
    /// The ACL user, or the default one.
    pub username: Option<String>,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

const FIELD: &str = "limits.shared.redis";
/// Longer, and clients give up first.
const TIMEOUTS: Lives = Lives { least: ("10ms", Duration::from_millis(10)), most: ("5s", Duration::from_secs(5)) };

pub(super) fn check(
    raw: raw::Shared,
    keys: &[raw::Key],
    surroundings: &Surroundings<'_>,
) -> Result<SharedLimits, SettingsError> {
    let raw::Redis { cluster, namespace, username, password, timeout, on_error } = raw.redis;
    let field = |name: &str| format!("{FIELD}.{name}");
    if cluster.is_empty() {
        return Err(SettingsError::at(field("cluster"), Problem::Empty));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !(1..=64).contains(&namespace.len()) || !namespace.bytes().all(is_plain) {
        return Err(SettingsError::at(field("namespace"), Problem::NotANamespace(namespace)));
    }
    let login = match (username, password) {
        (username, Some(password)) => {
            let (field, password) = read_secret(&field("password"), &password, surroundings)?;
            if password.is_empty() {
                return Err(SettingsError::at(field, Problem::Empty));
            }
            Some(Login { username, password })
        }
        (Some(_), None) => return Err(SettingsError::at(field("username"), Problem::NeedsPassword)),
        (None, None) => None,
    };
    let Some(key) = keys.first() else {
        return Err(SettingsError::at("limits.shared", Problem::NeedsKey));
    };
    let key = secret("affinity.keys[0]", &key.secret, surroundings)?;
    Ok(SharedLimits {
        secret: shared_secret(&key, &namespace),
        timeout: TIMEOUTS.check(&field("timeout"), timeout)?,
        cluster,
        namespace,
        login,
        on_error,
    })
}

/// Derived from the key that seals routes (HKDF-SHA256, RFC 5869), so that Redis, which may be read by others, names no client,
/// and nothing has to be agreed on through it.
fn shared_secret(key: &[u8], namespace: &str) -> Secret {
    let mut secret = [0; 32];
    // It cannot fail: it asks for fewer than 255 blocks.
    let _ = Hkdf::<Sha256>::new(Some(b"envoy-signalr"), key)
        .expand_multi_info(&[b"limits.shared:", namespace.as_bytes()], &mut secret);
    Secret::new(secret)
}
