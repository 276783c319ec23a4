//! Tokens as a login would hand them out, and tokens that somebody made up (RFC 7515, 7519).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) type Key = [u8; 32];

/// A token of `https://login.example.com` with any signature.
pub(crate) fn jwt(sub: &str, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let issuer = "https://login.example.com";
    let claims = json!({ "sub": sub, "iss": issuer, "aud": "chat", "exp": 4_000_000_000_u64 });
    format!("{}.{}.{signature}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims))
}

/// The same, signed: HMAC with SHA-256 (RFC 2104).
pub(crate) fn signed(sub: &str, key: &Key) -> String {
    let token = jwt(sub, "");
    let unsigned = token.trim_end_matches('.');
    let pad = |with: u8| key.iter().copied().chain([0; 32]).map(move |byte| byte ^ with).collect::<Vec<_>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(unsigned).finalize();
    let signature = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The key as a login publishes its keys (RFC 7517).
pub(crate) fn jwks(key: &Key) -> String {
    json!({ "keys": [{ "kty": "oct", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(key) }] }).to_string()
}
