//! Who a client is: the key that its connections are counted under.
//!
//! Only a keyed hash of what distinguishes clients is kept, so shared memory and logs give nobody away.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use percent_encoding::percent_decode;

use crate::http::{self, Head};
use crate::ledger::keyed_hash;
use crate::settings::{AbsentKey, ClientKeySource, ClientSettings};
use crate::store::Secret;

/// A client as the ledger knows it: 64 bits of a keyed hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey(pub(crate) [u8; 8]);

/// Where a request came from, by what Envoy vouches for.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    address: Option<Address>,
    claim: Option<Vec<u8>>,
}

/// An address, and which client it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    written: IpAddr,
    /// The IPv4 address inside `written`, if it carries one.
    client: IpAddr,
}

impl Address {
    fn new(written: IpAddr) -> Self {
        Self { written, client: embedded(written).map_or(written, IpAddr::V4) }
    }

    /// What the proxy nearest to the filter wrote into `name`: the last entry of the last header, because a proxy adds its own
    /// behind what the client sent.
    fn in_header(head: &Head, name: &str) -> Option<Self> {
        Self::read(head.all(name).last()?.rsplit(|byte| *byte == b',').next()?)
    }

    /// An address as proxies write it: by itself, with a port, or in brackets.
    fn read(value: &[u8]) -> Option<Self> {
        let text = str::from_utf8(value.trim_ascii()).ok()?;
        let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
        let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
        text.parse().ok().or_else(with_port).or_else(in_brackets).map(Self::new)
    }

    /// The network that counts as one client.
    fn network(self, settings: &ClientSettings) -> String {
        let prefix = if self.client.is_ipv4() { settings.ipv4_prefix } else { settings.ipv6_prefix };
        IpNet::new(self.client, prefix).map(|network| network.trunc().to_string()).unwrap_or_default()
    }
}

/// The IPv4 address whose holder an IPv6 address stands for: mapped (RFC 4291 section 2.5.5.2), translated by NAT64 (RFC 6052
/// section 2.1) or of 6to4 (RFC 3056).
///
/// A connection from any of them comes from the holder of that IPv4 address, since that is where the answers go. As IPv6, all
/// that one translator speaks for would share a /64 and be one client, and with 6to4 one address would be 65,536 clients, as
/// many as its /48 has networks.
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

impl Peer {
    /// Reads Envoy's `source.address`: `10.0.0.1:80` or `[::1]:80`. Anything else, such as the path of a Unix socket, is one
    /// nameless client.
    pub fn new(source_address: &[u8]) -> Self {
        let text = str::from_utf8(source_address).unwrap_or_default();
        Self { address: text.parse::<SocketAddr>().ok().map(|address| Address::new(address.ip())), claim: None }
    }

    /// Adds the claim of [`ClientKeySource::JwtClaim`] as `jwt_authn` verified it: the bytes of a text or of a number.
    pub fn with_claim(self, claim: Option<Vec<u8>>) -> Self {
        Self { claim, ..self }
    }

    /// Whether no limit holds for the client that sent `head`.
    pub fn is_exempt(&self, settings: &ClientSettings, head: &Head) -> bool {
        let address = match &settings.key {
            // The peer is the proxy, whose own address may well be of a network that is exempt: then nobody would be limited.
            ClientKeySource::AddressHeader(name) => Address::in_header(head, name),
            ClientKeySource::SourceAddress
            | ClientKeySource::Header(_)
            | ClientKeySource::Cookie(_)
            | ClientKeySource::JwtClaim(_)
            | ClientKeySource::Query(_) => self.address,
        };
        address.is_some_and(|address| {
            settings
                .exempt
                .iter()
                .any(|network| network.contains(&address.client) || network.contains(&address.written))
        })
    }
}

/// The key of the client that sent `head` from `peer`; `None` if it has none and is to be refused for that.
pub(super) fn key(settings: &ClientSettings, head: &Head, peer: &Peer, secret: &Secret) -> Option<ClientKey> {
    let of_address = |address: Option<Address>| {
        let network = address.map(|address| address.network(settings)).unwrap_or_default();
        Some(ClientKey(keyed_hash(secret, "address", network.as_bytes())))
    };
    let named = match &settings.key {
        ClientKeySource::SourceAddress => return of_address(peer.address),
        ClientKeySource::AddressHeader(name) => match Address::in_header(head, name) {
            None => None,
            address => return of_address(address),
        },
        ClientKeySource::Header(name) => head.get(name).map(<[u8]>::to_vec),
        ClientKeySource::Cookie(name) => {
            head.cookies().find(|(cookie, _)| *cookie == name.as_bytes()).map(|(_, value)| value.to_vec())
        }
        ClientKeySource::Query(name) => query(head, name.as_bytes()),
        ClientKeySource::JwtClaim(_) => peer.claim.clone(),
    };
    match (named.filter(|name| !name.is_empty()), settings.absent) {
        (Some(name), _) => Some(ClientKey(keyed_hash(secret, "name", &name))),
        (None, AbsentKey::Address) => of_address(peer.address),
        (None, AbsentKey::Refuse) => None,
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
        key(&settings(source), &http::head_of(headers), &Peer::new(peer.as_bytes()), &Secret::new([1; 32])).unwrap()
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
            ("[64:ff9b::192.0.2.1]:80", "192.0.2.2:80", true),
            ("[64:ff9b::192.0.2.1]:80", "[64:ff9b::192.0.3.1]:80", false),
            // RFC 8215: where the IPv4 address stands in it is for the network to say.
            ("[64:ff9b:1::192.0.2.1]:80", "192.0.2.1:80", false),
            ("[2002:c000:201::1]:80", "192.0.2.2:80", true),
            ("[2002:c000:201:1::1]:80", "[2002:c000:201:2::1]:80", true),
            ("[2002:c000:201::1]:80", "[2002:c000:301::1]:80", false),
            ("/run/envoy.sock", "", true),
        ] {
            assert_eq!(address(one) == address(other), same, "{one} and {other}");
        }
    }

    #[test]
    fn an_address_in_a_header_is_what_the_nearest_proxy_wrote() {
        let client = |headers: &[&str]| {
            let headers: Vec<_> = headers.iter().map(|value| ("x-forwarded-for", *value)).collect();
            key_of(ClientKeySource::AddressHeader("x-forwarded-for".to_owned()), &headers, "192.0.2.1:80")
        };
        let is = |address: &str| key_of(ClientKeySource::SourceAddress, &[], address);
        let proxy = is("192.0.2.1:80");
        for (name, headers, expected) in [
            ("an address", vec!["198.51.100.7"], is("198.51.100.8:1")),
            ("with a port", vec!["198.51.100.7:40001"], is("198.51.100.8:1")),
            ("IPv6", vec!["2001:db8::1"], is("[2001:db8::2]:1")),
            ("IPv6 with a port", vec!["[2001:db8::1]:40001"], is("[2001:db8::2]:1")),
            ("IPv6 in brackets", vec!["[2001:db8::1]"], is("[2001:db8::2]:1")),
            ("IPv4 in IPv6", vec!["[::ffff:198.51.100.7]:40001"], is("198.51.100.8:1")),
            ("the last of a list", vec!["203.0.113.9, 198.51.100.7:1"], is("198.51.100.8:1")),
            ("the last of several headers", vec!["203.0.113.9", "203.0.113.10,198.51.100.7"], is("198.51.100.8:1")),
            ("none", vec![], proxy),
            ("empty", vec![""], proxy),
            ("an empty entry at the end", vec!["203.0.113.9,"], proxy),
            ("a name", vec!["203.0.113.9, unknown"], proxy),
            ("half a port", vec!["198.51.100.7:"], proxy),
            ("too large a port", vec!["198.51.100.7:65536"], proxy),
            ("IPv4 in brackets", vec!["[198.51.100.7]"], proxy),
            ("no text", vec!["198.51.100.7\u{fffd}"], proxy),
        ] {
            assert_eq!(client(&headers), expected, "{name}");
        }
    }

    #[test]
    fn whoever_has_no_address_in_the_header_is_refused_where_that_is_configured() {
        let source = || ClientKeySource::AddressHeader("x-real-ip".to_owned());
        let settings = ClientSettings { absent: AbsentKey::Refuse, ..settings(source()) };
        for (name, value, expected) in [("an address", "192.0.2.1", true), ("none", "unknown", false)] {
            let head = http::head_of(&[("x-real-ip", value)]);
            let key = key(&settings, &head, &Peer::new(b"192.0.2.1:80"), &Secret::new([1; 32]));
            assert_eq!(key.is_some(), expected, "{name}");
        }
    }

    #[test]
    fn the_address_that_a_client_is_known_by_is_the_one_that_can_be_exempt() {
        let header = || ClientKeySource::AddressHeader("x-real-ip".to_owned());
        let user = || ClientKeySource::Header("x-real-ip".to_owned());
        let networks = || ["10.0.0.0/8", "2002:c000:200::/40"].map(|network| network.parse().unwrap()).to_vec();
        for (name, key, value, peer, expected) in [
            ("inside", ClientKeySource::SourceAddress, None, "10.9.8.7:1", true),
            ("outside", ClientKeySource::SourceAddress, None, "11.0.0.1:1", false),
            ("inside, in IPv6", ClientKeySource::SourceAddress, None, "[64:ff9b::10.9.8.7]:1", true),
            ("inside as it is written", ClientKeySource::SourceAddress, None, "[2002:c000:201::1]:1", true),
            ("a name of an address that is inside", user(), Some("ann"), "10.9.8.7:1", true),
            ("in the header", header(), Some("10.9.8.7:40001"), "11.0.0.1:1", true),
            ("the proxy only", header(), Some("11.0.0.1"), "10.9.8.7:1", false),
            ("the proxy, and no address", header(), Some("unknown"), "10.9.8.7:1", false),
            ("the proxy, and no header", header(), None, "10.9.8.7:1", false),
        ] {
            let head = http::head_of(value.map(|value| ("x-real-ip", value)).as_slice());
            let settings = ClientSettings { exempt: networks(), ..settings(key) };
            assert_eq!(Peer::new(peer.as_bytes()).is_exempt(&settings, &head), expected, "{name}");
        }
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
        let head = http::head_of(&[("authorization", "bearer e30.eyJzdWIiOiJldmUiLCJuIjo3fQ.sig")]);
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
