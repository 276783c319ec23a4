//! JSON as .NET reads it from its settings: with comments and with a comma after the last member.

/// The text with spaces in the place of comments and of commas before a closing bracket, so that each part keeps its line and column.
/// What is not JSON stays as it is.
pub(super) fn without_comments(text: &str) -> String {
    if !text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '[', '/']) {
        return text.to_owned();
    }
    let mut plain: Vec<char> = Vec::with_capacity(text.len());
    let mut letters = text.trim_start_matches('\u{feff}').chars().peekable();
    let mut last_comma = None;
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('"', _) => {
                last_comma = None;
                plain.push(letter);
                let mut is_escaped = false;
                for letter in letters.by_ref() {
                    plain.push(letter);
                    match letter {
                        '"' if !is_escaped => break,
                        _ => is_escaped = letter == '\\' && !is_escaped,
                    }
                }
            }
            ('/', Some('/')) => {
                plain.push(' ');
                while let Some(letter) = letters.next_if(|letter| *letter != '\n') {
                    plain.push(if letter == '\t' { '\t' } else { ' ' });
                }
            }
            ('/', Some('*')) => {
                plain.push(' ');
                let mut before = ' ';
                for letter in letters.by_ref() {
                    plain.push(if letter == '\n' { '\n' } else { ' ' });
                    if before == '*' && letter == '/' {
                        break;
                    }
                    before = letter;
                }
            }
            (',', _) => {
                last_comma = Some(plain.len());
                plain.push(letter);
            }
            ('}' | ']', _) => {
                if let Some(comma) = last_comma.take().and_then(|at| plain.get_mut(at)) {
                    *comma = ' ';
                }
                plain.push(letter);
            }
            _ => {
                if !letter.is_whitespace() {
                    last_comma = None;
                }
                plain.push(letter);
            }
        }
    }
    plain.into_iter().collect()
}
