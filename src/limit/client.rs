//! Who a client is: the key that its connections are counted under.
//!
//! Whatever tells clients apart, only a keyed hash of it is kept, so shared memory and logs give nobody away.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;
use percent_encoding::percent_decode;
use sha2::{Digest, Sha256};

use crate::http::{self, Head};
use crate::settings::{ClientKeySource, ClientSettings};
use crate::store::Secret;

/// Longest claim that is looked for: a token of 8 KiB is at the bounds of what servers take.
const MOST_TOKEN: usize = 8 * 1_024;

/// A client as the ledger knows it: 64 bits of a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey(pub(super) [u8; 8]);

/// The address that a request came from, as Envoy trusts it (`source.address`).
#[derive(Clone, Copy, Debug)]
pub struct Peer(Option<IpAddr>);

impl Peer {
    /// Reads `10.0.0.1:80` or `[::1]:80`. Anything else, such as the path of a Unix socket, is one nameless client.
    pub fn new(source_address: &[u8]) -> Self {
        let text = str::from_utf8(source_address).unwrap_or_default();
        Self(text.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical()))
    }

    /// Whether no limit holds for it.
    pub fn is_exempt(&self, settings: &ClientSettings) -> bool {
        self.0.is_some_and(|ip| settings.exempt.iter().any(|network| network.contains(&ip)))
    }

    /// The network that counts as one client.
    fn network(&self, settings: &ClientSettings) -> String {
        let Some(ip) = self.0 else { return String::new() };
        let prefix = if ip.is_ipv4() { settings.ipv4_prefix } else { settings.ipv6_prefix };
        IpNet::new(ip, prefix).map(|network| network.trunc().to_string()).unwrap_or_default()
    }
}

/// The key of the client that sent `head` from `peer`.
pub(super) fn key(settings: &ClientSettings, head: &Head, peer: &Peer, secret: &Secret) -> ClientKey {
    let named = match &settings.key {
        ClientKeySource::SourceAddress => None,
        ClientKeySource::Header(name) => head.get(name).map(<[u8]>::to_vec),
        ClientKeySource::Cookie(name) => {
            head.cookies().find(|(cookie, _)| *cookie == name.as_bytes()).map(|(_, value)| value.to_vec())
        }
        ClientKeySource::Query(name) => query(head, name.as_bytes()),
        ClientKeySource::JwtClaim(claim) => claim_of(head, claim),
    };
    match named.filter(|name| !name.is_empty()) {
        Some(name) => ClientKey(keyed_hash(secret, "name", &name)),
        None => ClientKey(keyed_hash(secret, "address", peer.network(settings).as_bytes())),
    }
}

/// 64 bits of SHA-256 over a secret, a purpose and a value.
pub(super) fn keyed_hash(secret: &Secret, purpose: &str, value: &[u8]) -> [u8; 8] {
    let digest = Sha256::new()
        .chain_update(secret.bytes())
        .chain_update(purpose)
        .chain_update([0])
        .chain_update(value)
        .finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

fn query(head: &Head, name: &[u8]) -> Option<Vec<u8>> {
    let target = head.get(":path")?;
    http::params(target).find(|param| *param.key == *name).map(|param| percent_decode(param.raw).collect())
}

/// A claim of the bearer token (RFC 7519), from `authorization` or, as browsers' WebSockets send it, `access_token`.
///
/// The signature is not checked: that is `jwt_authn`'s work, before this filter. Without it a client can make up claims.
fn claim_of(head: &Head, claim: &str) -> Option<Vec<u8>> {
    let header = head.get("authorization").and_then(|value| {
        let (scheme, token) = value.split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.to_vec())
    });
    let token = header.or_else(|| query(head, b"access_token")).filter(|token| token.len() <= MOST_TOKEN)?;
    let payload = token.split(|byte| *byte == b'.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    match serde_json::from_slice::<serde_json::Value>(&json).ok()?.get(claim)? {
        serde_json::Value::String(text) => Some(text.clone().into_bytes()),
        serde_json::Value::Number(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn settings(key: ClientKeySource) -> ClientSettings {
        ClientSettings { key, ipv4_prefix: 24, ipv6_prefix: 64, exempt: vec!["10.0.0.0/8".parse().unwrap()] }
    }

    fn key_of(source: ClientKeySource, headers: &[(&str, &str)], peer: &str) -> ClientKey {
        let pairs = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        key(&settings(source), &Head::new(pairs.collect()), &Peer::new(peer.as_bytes()), &Secret::new([1; 32]))
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let address = |peer| key_of(ClientKeySource::SourceAddress, &[], peer);
        for (one, other, same) in [
            ("192.0.2.1:80", "192.0.2.250:99", true),
            ("192.0.2.1:80", "192.0.3.1:80", false),
            ("[2001:db8::1]:80", "[2001:db8::ffff:1]:80", true),
            ("[2001:db8::1]:80", "[2001:db8:0:1::1]:80", false),
            ("[::ffff:192.0.2.1]:80", "192.0.2.2:80", true),
            ("/run/envoy.sock", "", true),
        ] {
            assert_eq!(address(one) == address(other), same, "{one} and {other}");
        }
        assert!(Peer::new(b"10.9.8.7:1").is_exempt(&settings(ClientKeySource::SourceAddress)));
        assert!(!Peer::new(b"11.0.0.1:1").is_exempt(&settings(ClientKeySource::SourceAddress)));
    }

    #[test]
    fn a_client_is_known_by_what_was_chosen_and_else_by_its_address() {
        // {"sub":"ann","n":7}
        let jwt = "e30.eyJzdWIiOiJhbm4iLCJuIjo3fQ.sig";
        let bearer = format!("Bearer {jwt}");
        let path = format!("/chat?access_token={jwt}&user=ann");
        let name = |source, headers: &[(&str, &str)]| key_of(source, headers, "192.0.2.1:80");
        let ann = name(ClientKeySource::Header("x-user".to_owned()), &[("x-user", "ann")]);
        let nobody = name(ClientKeySource::SourceAddress, &[]);
        let sub = || ClientKeySource::JwtClaim("sub".to_owned());
        for (what, got, expected) in [
            ("cookie", name(ClientKeySource::Cookie("u".to_owned()), &[("cookie", "a=1; u=ann")]), ann),
            ("query", name(ClientKeySource::Query("user".to_owned()), &[(":path", &path)]), ann),
            ("claim of the header", name(sub(), &[("authorization", &bearer)]), ann),
            ("claim of the query", name(sub(), &[(":path", &path)]), ann),
            ("no such claim", name(ClientKeySource::JwtClaim("x".to_owned()), &[("authorization", &bearer)]), nobody),
            ("a broken token", name(sub(), &[("authorization", "Bearer e30.!!.x")]), nobody),
            ("another scheme", name(sub(), &[("authorization", "Basic abc")]), nobody),
            ("an empty header", name(ClientKeySource::Header("x-user".to_owned()), &[("x-user", "")]), nobody),
        ] {
            assert_eq!(got, expected, "{what}");
        }
        assert_ne!(ann, nobody);
    }
}
