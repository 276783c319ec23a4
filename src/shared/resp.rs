//! Redis' protocol, RESP2 (redis.io, "Redis serialization protocol specification"): as much of it as commands with numbers for
//! answers need.

/// Writes a command: an array of bulk strings.
pub(super) fn write<'a>(
    body: &mut Vec<u8>,
    arguments: impl IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>,
) {
    let arguments = arguments.into_iter();
    head(body, b'*', arguments.len());
    for argument in arguments {
        head(body, b'$', argument.len());
        body.extend_from_slice(argument);
        body.extend_from_slice(END);
    }
}

fn head(body: &mut Vec<u8>, kind: u8, number: usize) {
    body.push(kind);
    body.extend_from_slice(number.to_string().as_bytes());
    body.extend_from_slice(END);
}

const END: &[u8] = b"\r\n";

/// An answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// An integer.
    Number(i64),
    /// A simple or a bulk string.
    Text(&'a [u8]),
    /// An error. Its first word is its kind.
    Error(&'a [u8]),
}

/// The first answer in `bytes`, and what follows. `None` if it is not whole, or nothing that a command of ours is answered with.
pub(super) fn read(bytes: &[u8]) -> Option<(Reply<'_>, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let end = rest.windows(END.len()).position(|window| window == END)?;
    let (line, rest) = rest.split_at_checked(end)?;
    let rest = rest.strip_prefix(END)?;
    let number = || str::from_utf8(line).ok()?.parse::<i64>().ok();
    match kind {
        b':' => Some((Reply::Number(number()?), rest)),
        b'+' => Some((Reply::Text(line), rest)),
        b'-' => Some((Reply::Error(line), rest)),
        b'$' => {
            let (text, rest) = rest.split_at_checked(usize::try_from(number()?).ok()?)?;
            Some((Reply::Text(text), rest.strip_prefix(END)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_command_is_an_array_of_its_arguments() {
        let mut body = b"before".to_vec();
        write(&mut body, [b"SET".as_slice(), b"k\r\n", b""]);
        assert_eq!(body, b"before*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$0\r\n\r\n");
    }

    #[test]
    fn each_answer_is_read_and_one_that_is_cut_is_none() {
        for (bytes, expected) in [
            (b":-12\r\n".as_slice(), Reply::Number(-12)),
            (b"+OK\r\n", Reply::Text(b"OK")),
            (b"-NOSCRIPT No matching script.\r\n", Reply::Error(b"NOSCRIPT No matching script.")),
            (b"$4\r\na\r\nb\r\n", Reply::Text(b"a\r\nb")),
        ] {
            let followed = [bytes, b":1\r\n"].concat();
            assert_eq!(read(&followed), Some((expected, b":1\r\n".as_slice())));
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), None, "cut at {cut}");
            }
        }
        for odd in [b"$-1\r\n".as_slice(), b":x\r\n", b"*0\r\n", b"$99999999999999999999\r\n", b"HTTP/1.1 400\r\n\r\n"]
        {
            assert_eq!(read(odd), None, "{}", odd.escape_ascii());
        }
    }
}
