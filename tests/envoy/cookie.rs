//! `Set-Cookie` as a browser reads it, and `Cookie` as one sends it back.

use testbed::raw::Answer;

/// A cookie that an answer sets, or clears with an empty value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetCookie {
    pub(crate) name: String,
    pub(crate) value: String,
    /// Everything behind the value, as it was written.
    pub(crate) attributes: String,
}

/// The cookies that `answer` sets, in order.
pub(crate) fn set_cookies(answer: &Answer) -> Vec<SetCookie> {
    let read = |text: String| {
        let (pair, attributes) = text.split_once("; ").unwrap_or((&text, ""));
        let (name, value) = pair.split_once('=').unwrap();
        SetCookie { name: name.to_owned(), value: value.to_owned(), attributes: attributes.to_owned() }
    };
    answer.head.all("set-cookie").into_iter().map(read).collect()
}

/// The one cookie that `answer` sets.
pub(crate) fn set_cookie(name: &str, answer: &Answer) -> SetCookie {
    let mut cookies = set_cookies(answer);
    assert_eq!(cookies.len(), 1, "{name}: {answer:?}");
    cookies.remove(0)
}

impl SetCookie {
    /// As it comes back in `Cookie`.
    pub(crate) fn pair(&self) -> String {
        format!("{}={}", self.name, self.value)
    }
}
