//! Parameters of a request target stand where they say, and a route behind the id steers and comes off again.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use envoy_signalr::affinity;
use envoy_signalr::clock::Millis;
use envoy_signalr::http::{self, Head};
use envoy_signalr::settings::{Settings, Surroundings};
use envoy_signalr::signalr::{self, Id};
use envoy_signalr::store::Secret;
use envoy_signalr::token::{Address, NONCE_LEN, Purpose, Route};
use libfuzzer_sys::fuzz_target;

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let surroundings = Surroundings { env: &|_| None, process_secret: &|| Secret::new([7; 32]) };
    Settings::parse(b"{}", &surroundings).expect("every default")
});

fn now() -> Millis {
    Millis::since_epoch(Duration::from_secs(1_800_000_000))
}

fn head(target: &[u8]) -> Head {
    let fields: [(&[u8], &[u8]); 2] = [(b":method", b"GET"), (b":path", target)];
    Head::new(http::header_map(fields.into_iter()))
}

fuzz_target!(|target: &[u8]| {
    assert!(target.starts_with(http::path(target)));
    let mut after = http::path(target).len();
    for param in http::params(target) {
        assert!(param.range.start > after || param.range.is_empty());
        assert_eq!(&target[param.range.clone()], param.raw);
        after = param.range.end;
    }
    assert!(after <= target.len());

    let Some(exchange) = signalr::classify(&head(target), &SETTINGS, |_| false) else { return };
    assert!(signalr::may_concern(target, &SETTINGS));
    let Id::One(id) = exchange.id else { return };
    let address = Address::new(b"10.0.0.1:8080").expect("an address");
    let route = Route::new(address.clone().into(), now(), Duration::from_secs(60));
    let sealed = SETTINGS.ring.seal(Purpose::ConnectionToken, &id.value, &route, [9; NONCE_LEN]).expect("a key");
    let carried = [&target[..id.range.end], b".", sealed.as_bytes(), &target[id.range.end..]].concat();

    let head = head(&carried);
    let exchange = signalr::classify(&head, &SETTINGS, |_| false).expect("still the same request");
    let decision = affinity::decide(&SETTINGS, &exchange, &head, now().seconds());
    assert_eq!(decision.pinned.map(|pinned| pinned.place.address), Some(address));
    assert_eq!(decision.id, Some(id.value));
    let strip = decision.seal.expect("a route to take off").range;
    assert_eq!([&carried[..strip.start], &carried[strip.end..]].concat(), target);
});
