use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn an_id_is_cut_at_its_last_dot_however_that_is_written() {
    for (target, expected) in [
        ("/c?id=a.b", Some(("a", "b", ".b"))),
        ("/c?x=1&id=a.b.c&y=2", Some(("a.b", "c", ".c"))),
        ("/c?id=a%2Eb", Some(("a", "b", "%2Eb"))),
        ("/c?id=a.b%2ec", Some(("a.b", "c", "%2ec"))),
        ("/c?id=a%2eb.c", Some(("a%2eb", "c", ".c"))),
        ("/c?id=.", Some(("", "", "."))),
        ("/c?id=ab", None),
        ("/c?id=a%2", None),
    ] {
        let param = crate::http::params(target.as_bytes()).find(|param| &*param.key == b"id").unwrap();
        let id = IdParam { value: Vec::new(), range: param.range };
        let got = suffix(target.as_bytes(), &id).map(|suffix| {
            let text = |bytes| std::str::from_utf8(bytes).unwrap();
            (text(suffix.id), text(suffix.sealed), text(&target.as_bytes()[suffix.range]))
        });
        assert_eq!(got, expected, "{target}");
    }
}
