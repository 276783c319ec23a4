//! The sealed route: which pod a connection lives on, in a form that a client can carry but neither read nor forge.
//!
//! XChaCha20-Poly1305 with a random 192-bit nonce. The associated data is the header, the purpose and the id that the
//! route belongs to, so a route cut from one connection id opens on no other, and a cookie is no token.
//!
//! ```text
//! base64url( version:1 | key fingerprint:4 | issued:4 | nonce:24 | encrypted( expires:4 | milliseconds:2 | place ) | tag:16 )
//! place = address, or address | 0 | cluster
//! ```
//!
//! The alphabet is RFC 3986's unreserved characters, because most SignalR clients put an id into the URL as it is.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};

use crate::clock::{Millis, Seconds};

const VERSION: u8 = 1;
const FINGERPRINT_LEN: usize = 4;
const HEADER_LEN: usize = 1 + FINGERPRINT_LEN + Seconds::LEN;
/// Bytes of randomness that every seal takes.
pub const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// An upstream host exactly as Envoy's `upstream.address` names it: `10.0.0.1:80`, `[::1]:80`, a socket's path or
/// `envoy://listener/10.0.0.1:80`. Opaque; at most [`Address::MOST`] bytes of visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Vec<u8>);

impl Address {
    /// The longest Unix socket path is 108 bytes; internal listeners add a name.
    const MOST: usize = 255;

    /// `None` when the bytes cannot be an address that Envoy gave.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let fits = (1..=Self::MOST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        fits.then(|| Self(bytes.to_vec()))
    }

    /// The address as Envoy wrote it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The name of an Envoy cluster: at most [`Address::MOST`] bytes of visible ASCII, so that it can be a header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster(Vec<u8>);

impl Cluster {
    /// `None` when the bytes cannot be in a header.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Address::new(bytes).map(|Address(name)| Self(name))
    }

    /// The name as Envoy gave it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// An upstream host, and the cluster that it was chosen from if requests are to stay in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub address: Address,
    /// Its cluster.
    pub cluster: Option<Cluster>,
}

impl From<Address> for Place {
    fn from(address: Address) -> Self {
        Self { address, cluster: None }
    }
}

impl Place {
    /// Between address and cluster, neither of which can have it.
    const SEPARATOR: u8 = 0;

    fn to_bytes(&self) -> Vec<u8> {
        let cluster = self.cluster.iter().flat_map(|cluster| [&[Self::SEPARATOR], cluster.as_bytes()]).flatten();
        self.address.as_bytes().iter().chain(cluster).copied().collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(2, |byte| *byte == Self::SEPARATOR);
        let address = Address::new(parts.next()?)?;
        let cluster = parts.next().map(|name| Cluster::new(name).ok_or(())).transpose().ok()?;
        Some(Self { address, cluster })
    }
}

/// What a sealed route is for. A route opens only for the purpose it was sealed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Appended to the connection id.
    ConnectionToken,
    /// The cookie of one connection id.
    ConnectionCookie,
    /// The cookie that bridges negotiate and the first request with the id.
    PendingCookie,
    /// The cookie of one client.
    ClientCookie,
}

impl Purpose {
    fn tag(self) -> u8 {
        match self {
            Self::ConnectionToken => b't',
            Self::ConnectionCookie => b'c',
            Self::PendingCookie => b'p',
            Self::ClientCookie => b'u',
        }
    }
}

/// Where a connection or a client lives, since when and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The upstream host.
    pub place: Place,
    /// When the host was chosen.
    pub issued: Millis,
    /// When the route stops to steer.
    pub expires: Seconds,
}

impl Route {
    /// The route to `place`, chosen at `now` and good for `ttl`.
    pub fn new(place: Place, now: Millis, ttl: Duration) -> Self {
        Self { place, issued: now, expires: now.seconds().plus(ttl) }
    }
}

/// Why a sealed route did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Authentic, but its time is over. The sealing gateway's clock decides, not the client's.
    Expired,
    /// Not one that any key here made for this id and purpose: altered, cut, or taken from elsewhere.
    Forged,
    /// Sealed by a key that is not in the ring: rotated out, or another gateway's.
    UnknownKey,
}

/// One key: it seals, or opens what it sealed earlier.
struct Key {
    fingerprint: [u8; FINGERPRINT_LEN],
    cipher: XChaCha20Poly1305,
}

/// The keys of a gateway. The first seals, all open, so keys rotate without cutting a connection.
pub struct KeyRing(Vec<Key>);

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

impl KeyRing {
    /// Derives a ring from `(key id, secret)` pairs by HKDF-SHA256 (RFC 5869). An empty ring seals and opens nothing.
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        Self(secrets.into_iter().filter_map(|(id, secret)| Key::derive(id, secret)).collect())
    }

    /// Seals `route` for `id`. `None` only when the ring is empty.
    pub fn seal(&self, purpose: Purpose, id: &[u8], route: &Route, nonce: [u8; NONCE_LEN]) -> Option<String> {
        let key = self.0.first()?;
        let header = [&[VERSION], key.fingerprint.as_slice(), &route.issued.seconds().to_bytes()].concat();
        let milliseconds = route.issued.rest().to_be_bytes();
        let plain = [route.expires.to_bytes().as_slice(), &milliseconds, &route.place.to_bytes()].concat();
        let aad = associated_data(&header, purpose, id);
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), Payload { msg: &plain, aad: &aad }).ok()?;
        Some(URL_SAFE_NO_PAD.encode([header.as_slice(), &nonce, &sealed].concat()))
    }

    /// Opens what [`KeyRing::seal`] made for the same purpose and id.
    ///
    /// # Errors
    /// Every [`Refusal`]; only an authentic one is ever [`Refusal::Expired`].
    pub fn open(&self, purpose: Purpose, id: &[u8], sealed: &[u8], now: Seconds) -> Result<Route, Refusal> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| Refusal::Forged)?;
        let (header, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(Refusal::Forged)?;
        let (nonce, encrypted) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Refusal::Forged)?;
        let (issued, fingerprint) = parse_header(header).ok_or(Refusal::Forged)?;
        if encrypted.len() < TAG_LEN {
            return Err(Refusal::Forged);
        }
        let key = self.0.iter().find(|key| key.fingerprint == fingerprint).ok_or(Refusal::UnknownKey)?;
        let aad = associated_data(header, purpose, id);
        let payload = Payload { msg: encrypted, aad: &aad };
        let plain = key.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| Refusal::Forged)?;
        let (expires, rest) = plain.split_first_chunk().ok_or(Refusal::Forged)?;
        let (milliseconds, place) = rest.split_first_chunk().ok_or(Refusal::Forged)?;
        let place = Place::from_bytes(place).ok_or(Refusal::Forged)?;
        let issued = Millis::at(issued, u16::from_be_bytes(*milliseconds));
        let route = Route { place, issued, expires: Seconds::from_bytes(*expires) };
        if now >= route.expires { Err(Refusal::Expired) } else { Ok(route) }
    }
}

/// When a sealed route was issued, as it says itself: read without a key, so good only for ordering a client's own cookies.
pub fn claimed_issue(sealed: &[u8]) -> Option<Seconds> {
    let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
    parse_header(bytes.get(..HEADER_LEN)?).map(|(issued, _)| issued)
}

/// 72 bits of SHA-256 of a connection id, in 12 characters: names a connection without giving its id away.
pub fn fingerprint_of_id(id: &[u8]) -> String {
    let mut text = URL_SAFE_NO_PAD.encode(Sha256::digest(id));
    text.truncate(12);
    text
}

impl Key {
    fn derive(id: &str, secret: &[u8]) -> Option<Self> {
        let hkdf = Hkdf::<Sha256>::new(Some(b"envoy-signalr"), secret);
        let mut fingerprint = [0; FINGERPRINT_LEN];
        let mut key = [0; 32];
        // Neither can fail: both ask for fewer than 255 blocks.
        hkdf.expand_multi_info(&[b"fingerprint:", id.as_bytes()], &mut fingerprint).ok()?;
        hkdf.expand_multi_info(&[b"route:", id.as_bytes()], &mut key).ok()?;
        Some(Self { fingerprint, cipher: XChaCha20Poly1305::new(&key.into()) })
    }
}

fn parse_header(header: &[u8]) -> Option<(Seconds, [u8; FINGERPRINT_LEN])> {
    let (version, rest) = header.split_first()?;
    let (fingerprint, issued) = rest.split_first_chunk()?;
    (*version == VERSION).then_some(())?;
    Some((Seconds::from_bytes(issued.try_into().ok()?), *fingerprint))
}

fn associated_data(header: &[u8], purpose: Purpose, id: &[u8]) -> Vec<u8> {
    [header, &[purpose.tag()], id].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(seconds: u64) -> Seconds {
        crate::clock::Millis::since_epoch(Duration::from_secs(seconds)).seconds()
    }

    fn ring(ids: &[&str]) -> KeyRing {
        KeyRing::new(ids.iter().map(|id| (*id, [7_u8; 32].as_slice())))
    }

    fn place(cluster: Option<&[u8]>) -> Place {
        Place { address: Address::new(b"10.0.0.1:8080").unwrap(), cluster: cluster.and_then(Cluster::new) }
    }

    fn route() -> Route {
        let issued = crate::clock::Millis::since_epoch(Duration::from_millis(1_000_123));
        Route::new(place(None), issued, Duration::from_secs(60))
    }

    fn sealed() -> String {
        ring(&["a"]).seal(Purpose::ConnectionToken, b"id", &route(), [9; NONCE_LEN]).unwrap()
    }

    #[test]
    fn a_sealed_route_opens_only_as_it_was_sealed() {
        let open = |keys: &[&str], purpose, id: &str, now| {
            ring(keys).open(purpose, id.as_bytes(), sealed().as_bytes(), at(now))
        };
        let token = Purpose::ConnectionToken;
        for (name, got, expected) in [
            ("same key", open(&["a"], token, "id", 1_059), Ok(route())),
            ("rotated key still in the ring", open(&["b", "a"], token, "id", 1_059), Ok(route())),
            ("gateway whose clock is behind", open(&["a"], token, "id", 1), Ok(route())),
            ("its time is over", open(&["a"], token, "id", 1_060), Err(Refusal::Expired)),
            ("key not in the ring", open(&["b"], token, "id", 1_059), Err(Refusal::UnknownKey)),
            ("no key", open(&[], token, "id", 1_059), Err(Refusal::UnknownKey)),
            ("another id", open(&["a"], token, "id2", 1_059), Err(Refusal::Forged)),
            ("another purpose", open(&["a"], Purpose::ConnectionCookie, "id", 1_059), Err(Refusal::Forged)),
        ] {
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn a_cluster_comes_back_and_what_cannot_be_one_is_no_place() {
        for cluster in [None, Some(b"outbound|80|v2|chat.default.svc.cluster.local".as_slice())] {
            assert_eq!(Place::from_bytes(&place(cluster).to_bytes()), Some(place(cluster)));
        }
        for bytes in [b"10.0.0.1:80\0".as_slice(), b"\0v2", b"10.0.0.1:80\0a\0b", b"10.0.0.1:80\0a b"] {
            assert_eq!(Place::from_bytes(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_same_key_id_with_another_secret_is_an_unknown_key() {
        let other = KeyRing::new([("a", [8_u8; 32].as_slice())]);
        let got = other.open(Purpose::ConnectionToken, b"id", sealed().as_bytes(), at(1_000));
        assert_eq!(got, Err(Refusal::UnknownKey));
    }

    #[test]
    fn no_altered_byte_and_no_cut_opens() {
        let (ring, sealed) = (ring(&["a"]), sealed());
        for at_byte in 0..sealed.len() {
            for flip in [0x01, 0x02, 0x20, 0x80] {
                let mut altered = sealed.clone().into_bytes();
                altered[at_byte] ^= flip;
                assert!(
                    ring.open(Purpose::ConnectionToken, b"id", &altered, at(1_000)).is_err(),
                    "byte {at_byte} ^ {flip}"
                );
            }
            let cut = &sealed.as_bytes()[..at_byte];
            assert_eq!(
                ring.open(Purpose::ConnectionToken, b"id", cut, at(1_000)),
                Err(Refusal::Forged),
                "cut at {at_byte}"
            );
        }
    }

    #[test]
    fn a_sealed_route_needs_no_encoding_in_a_url() {
        let sealed = sealed();
        assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{sealed}");
        assert_eq!(claimed_issue(sealed.as_bytes()), Some(at(1_000)));
        assert!(!sealed.contains("MTAuMC4w"), "the address is not readable");
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", ring(&["a", "b"])), "KeyRing(2 keys)");
    }
}
