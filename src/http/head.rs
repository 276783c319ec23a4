//! The headers of a message, read in place in the form that Envoy hands them over.

/// The headers of one request or response, pseudo headers included, in the order Envoy gives them.
///
/// They stay in proxy-wasm's form of a header map: the number of fields, the length of each name and value, then each name and
/// value with a NUL behind. Numbers have four bytes, the lowest first. So one call reads all headers, and nothing is copied; a
/// look-up walks over the lengths.
///
/// ```text
/// 02 00 00 00 | 05 00 00 00  01 00 00 00 | 02 00 00 00  02 00 00 00 | :path 00 / 00 | te 00 \xffx 00
/// two fields  | 5 and 1                  | 2 and 2                  |
/// ```
#[derive(Debug, Default)]
pub struct Head {
    map: Vec<u8>,
}

impl Head {
    /// Takes a header map as Envoy gives it: names in lower case. What is malformed has the fields before the fault.
    pub fn new(map: Vec<u8>) -> Self {
        Self { map }
    }

    /// The first value of `name`, which must be in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// Every value of `name`, which must be in lower case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
    }

    /// Each `name=value` pair of the `cookie` headers (RFC 6265 section 4.2.1), without surrounding space.
    ///
    /// Node's SignalR client sends attributes such as `Path=/` as if they were cookies; callers look for names of
    /// their own, so those pairs do no harm.
    pub fn cookies(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.all("cookie").flat_map(|header| header.split(|byte| *byte == b';')).filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.split_at_checked(at)?;
            Some((name.trim_ascii(), value.get(1..)?.trim_ascii()))
        })
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (count, rest) = number(&self.map).unwrap_or_default();
        let (lengths, mut content) =
            count.checked_mul(LENGTHS).and_then(|size| rest.split_at_checked(size)).unwrap_or_default();
        lengths.chunks_exact(LENGTHS).map_while(move |lengths| {
            let (name, lengths) = number(lengths)?;
            let (value, _) = number(lengths)?;
            Some((text(&mut content, name)?, text(&mut content, value)?))
        })
    }
}

/// The size of the two lengths of a field.
const LENGTHS: usize = 8;

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

/// Takes a name or a value off the front of `content`, and the NUL behind it.
fn text<'a>(content: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (text, rest) = content.split_at_checked(length)?;
    *content = rest.get(1..)?;
    Some(text)
}

/// Writes a header map in the form that [`Head`] reads.
pub fn header_map<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let size = |len: usize| u32::try_from(len).unwrap_or(0).to_le_bytes();
    let mut map = size(fields.clone().count()).to_vec();
    for (name, value) in fields.clone() {
        map.extend(size(name.len()).into_iter().chain(size(value.len())));
    }
    for (name, value) in fields {
        map.extend(name.iter().chain(&[0]).chain(value).chain(&[0]));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    type Fields = &'static [(&'static str, &'static [u8])];

    fn map(fields: Fields) -> Vec<u8> {
        header_map(fields.iter().map(|(name, value)| (name.as_bytes(), *value)))
    }

    fn read(map: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        Head::new(map.to_vec()).fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn a_map_is_read_as_it_was_written() {
        let cases: [Fields; 3] = [&[], &[("te", b"")], &[(":path", b"/"), ("te", b"\xffx"), ("te", b"a\0b")]];
        for fields in cases {
            let expected: Vec<_> =
                fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
            assert_eq!(read(&map(fields)), expected);
        }
        assert_eq!(map(&[("te", b"\xffx")]), *b"\x01\0\0\0\x02\0\0\0\x02\0\0\0te\0\xffx\0");
    }

    #[test]
    fn a_malformed_map_has_the_fields_before_the_fault() {
        let whole = map(&[(":path", b"/"), ("te", b"trailers")]);
        for length in 0..whole.len() {
            let expected = match length {
                // The lengths are not all there.
                ..20 => 0,
                20..28 => 0,
                _ => 1,
            };
            assert_eq!(read(&whole[..length]).len(), expected, "{length} of {} bytes", whole.len());
        }
        for count in [b"\xff\xff\xff\xff", b"\x00\x00\x00\x80"] {
            assert_eq!(read(&[count.as_slice(), &whole[4..]].concat()), []);
        }
        let longest = [&whole[..4], b"\xff\xff\xff\xff", &whole[8..]].concat();
        assert_eq!(read(&longest), []);
    }

    #[test]
    fn every_value_of_a_name_is_found() {
        let head = Head::new(map(&[("a", b"1"), ("b", b"2"), ("a", b"3")]));
        assert_eq!(head.get("a"), Some(b"1".as_slice()));
        assert_eq!(head.all("a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(head.get("c"), None);
    }

    #[test]
    fn cookies_are_read_as_bytes() {
        let head = Head::new(map(&[("cookie", b"a=1; Path=/; HttpOnly; b = 2=3"), ("cookie", b"c=\xff")]));
        let cookies: Vec<_> = head.cookies().collect();
        let expected: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"Path", b"/"), (b"b", b"2=3"), (b"c", b"\xff")];
        assert_eq!(cookies, expected);
    }
}
