//! One thing to say of a file.

use std::fmt;

/// What was found, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// Nothing for the file as a whole.
    pub(crate) place: Option<Place>,
    pub(crate) text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The file does not configure the filter.
    Nothing,
    /// The filter takes the configuration.
    Accepted,
    /// What could not be looked at, or helps with another finding.
    Note,
    /// It does not work as it is meant to.
    Warning,
    /// Envoy, Istio or Envoy Gateway refuse the file.
    Error,
    /// The filter refuses the configuration.
    Refused,
}

/// A position in the file. Both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Finding {
    pub(crate) fn new(level: Level, place: Option<Place>, text: impl Into<String>) -> Self {
        Self { level, place, text: text.into() }
    }

    pub(crate) fn is_error(&self) -> bool {
        match self.level {
            Level::Error | Level::Refused => true,
            Level::Nothing | Level::Accepted | Level::Note | Level::Warning => false,
        }
    }
}

impl Level {
    /// For programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Accepted => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error | Self::Refused => "error",
        }
    }
}

impl fmt::Display for Finding {
    /// As compilers write it, without the file's name: editors find the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}: ")?;
        } else {
            f.write_str(" ")?;
        }
        let label = match self.level {
            Level::Nothing => "nothing to check: ",
            Level::Accepted if self.text.is_empty() => "ok",
            Level::Accepted => "ok; ",
            Level::Note => "note: ",
            Level::Warning => "warning: ",
            Level::Error => "error: ",
            Level::Refused => "configuration refused: ",
        };
        write!(f, "{label}{}", self.text)
    }
}
