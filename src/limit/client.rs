//! Who a client is: the key that its connections are counted under.
//!
//! Whatever tells clients apart, only a keyed hash of it is kept, so shared memory and logs give nobody away.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use percent_encoding::percent_decode;

use crate::http::{self, Head};
use crate::ledger::keyed_hash;
use crate::settings::{AbsentKey, ClientKeySource, ClientSettings};
use crate::store::Secret;

/// A client as the ledger knows it: 64 bits of a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey(pub(crate) [u8; 8]);

/// Where a request came from, by what Envoy vouches for.
#[derive(Clone, Debug)]
pub struct Peer {
    address: Option<IpAddr>,
    claim: Option<Vec<u8>>,
}

impl Peer {
    /// Reads Envoy's `source.address`: `10.0.0.1:80` or `[::1]:80`. Anything else, such as the path of a Unix socket, is one
    /// nameless client.
    pub fn new(source_address: &[u8]) -> Self {
        let text = str::from_utf8(source_address).unwrap_or_default();
        Self { address: text.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical()), claim: None }
    }

    /// Adds the claim of [`ClientKeySource::JwtClaim`] as `jwt_authn` verified it: the bytes of a text or of a number.
    pub fn with_claim(self, claim: Option<Vec<u8>>) -> Self {
        Self { claim, ..self }
    }

    /// Whether no limit holds for it.
    pub fn is_exempt(&self, settings: &ClientSettings) -> bool {
        self.address.is_some_and(|ip| settings.exempt.iter().any(|network| network.contains(&ip)))
    }

    /// The network that counts as one client.
    fn network(&self, settings: &ClientSettings) -> String {
        let Some(ip) = self.address else { return String::new() };
        let prefix = if ip.is_ipv4() { settings.ipv4_prefix } else { settings.ipv6_prefix };
        IpNet::new(ip, prefix).map(|network| network.trunc().to_string()).unwrap_or_default()
    }
}

/// The key of the client that sent `head` from `peer`; `None` if it has none and is to be refused for that.
pub(super) fn key(settings: &ClientSettings, head: &Head, peer: &Peer, secret: &Secret) -> Option<ClientKey> {
    let named = match &settings.key {
        ClientKeySource::SourceAddress => None,
        ClientKeySource::Header(name) => head.get(name).map(<[u8]>::to_vec),
        ClientKeySource::Cookie(name) => {
            head.cookies().find(|(cookie, _)| *cookie == name.as_bytes()).map(|(_, value)| value.to_vec())
        }
        ClientKeySource::Query(name) => query(head, name.as_bytes()),
        ClientKeySource::JwtClaim(_) => peer.claim.clone(),
    };
    let is_address = settings.key == ClientKeySource::SourceAddress;
    match named.filter(|name| !name.is_empty()) {
        Some(name) => Some(ClientKey(keyed_hash(secret, "name", &name))),
        None if is_address || settings.absent == AbsentKey::Address => {
            Some(ClientKey(keyed_hash(secret, "address", peer.network(settings).as_bytes())))
        }
        None => None,
    }
}

fn query(head: &Head, name: &[u8]) -> Option<Vec<u8>> {
    let target = head.get(":path")?;
    http::params(target).find(|param| *param.key == *name).map(|param| percent_decode(param.raw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn settings(key: ClientKeySource) -> ClientSettings {
        let exempt = vec!["10.0.0.0/8".parse().unwrap()];
        ClientSettings { key, absent: AbsentKey::Address, ipv4_prefix: 24, ipv6_prefix: 64, exempt }
    }

    fn key_of(source: ClientKeySource, headers: &[(&str, &str)], peer: &str) -> ClientKey {
        let pairs = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        key(&settings(source), &Head::new(pairs.collect()), &Peer::new(peer.as_bytes()), &Secret::new([1; 32])).unwrap()
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
        let name = |source, headers: &[(&str, &str)]| key_of(source, headers, "192.0.2.1:80");
        let ann = name(ClientKeySource::Header("x-user".to_owned()), &[("x-user", "ann")]);
        let nobody = name(ClientKeySource::SourceAddress, &[]);
        for (what, got, expected) in [
            ("cookie", name(ClientKeySource::Cookie("u".to_owned()), &[("cookie", "a=1; u=ann")]), ann),
            ("query", name(ClientKeySource::Query("user".to_owned()), &[(":path", "/chat?user=ann")]), ann),
            ("an empty header", name(ClientKeySource::Header("x-user".to_owned()), &[("x-user", "")]), nobody),
        ] {
            assert_eq!(got, expected, "{what}");
        }
        assert_ne!(ann, nobody);
    }

    #[test]
    fn only_a_claim_that_envoy_verified_counts() {
        let source = || ClientKeySource::JwtClaim("sub".to_owned());
        // {"sub":"eve","n":7}, which nobody verified.
        let head = Head::new(vec![("authorization".to_owned(), b"bearer e30.eyJzdWIiOiJldmUiLCJuIjo3fQ.sig".to_vec())]);
        let key = |absent, claim: Option<&[u8]>| {
            let peer = Peer::new(b"192.0.2.1:80").with_claim(claim.map(<[u8]>::to_vec));
            key(&ClientSettings { absent, ..settings(source()) }, &head, &peer, &Secret::new([1; 32]))
        };
        let ann = name_of("ann");
        let nobody = key_of(ClientKeySource::SourceAddress, &[], "192.0.2.1:80");
        for (name, absent, claim, expected) in [
            ("verified", AbsentKey::Address, Some(b"ann".as_slice()), Some(ann)),
            ("verified", AbsentKey::Refuse, Some(b"ann"), Some(ann)),
            ("none: the address", AbsentKey::Address, None, Some(nobody)),
            ("none: refused", AbsentKey::Refuse, None, None),
            ("an empty one", AbsentKey::Refuse, Some(b""), None),
        ] {
            assert_eq!(key(absent, claim), expected, "{name}");
        }
    }

    fn name_of(name: &str) -> ClientKey {
        key_of(ClientKeySource::Header("x-user".to_owned()), &[("x-user", name)], "192.0.2.1:80")
    }
}
