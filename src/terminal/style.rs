//! Colours, where somebody looks and wants them.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;

/// Whether output to a stream may be coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    /// Colours are written.
    On,
    /// Plain text only.
    Off,
}

impl Colours {
    /// What suits the standard output.
    pub fn for_stdout() -> Self {
        Self::choose(std::io::stdout().is_terminal())
    }

    /// What suits the standard error output.
    pub fn for_stderr() -> Self {
        Self::choose(std::io::stderr().is_terminal())
    }

    fn choose(terminal: bool) -> Self {
        Self::decide(terminal, std::env::var_os("NO_COLOR").as_deref(), std::env::var_os("TERM").as_deref())
    }

    /// Colours need a terminal that knows them and no wish against them: `NO_COLOR` with any text says no
    /// (no-color.org).
    fn decide(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        let unwanted = no_color.is_some_and(|value| !value.is_empty());
        let dumb = term.is_some_and(|term| term == "dumb");
        if terminal && !unwanted && !dumb { Self::On } else { Self::Off }
    }

    /// `text` in this style, or plain.
    pub fn paint<T: fmt::Display>(self, style: Style, text: T) -> Painted<T> {
        Painted { colours: self, style, text }
    }
}

/// How a text is set off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Headings.
    Bold,
    /// Side remarks.
    Dim,
    /// Errors.
    Red,
    /// Warnings.
    Yellow,
    /// Success.
    Green,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "1;31",
            Self::Yellow => "33",
            Self::Green => "32",
        }
    }
}

/// A text with its style.
#[derive(Clone, Copy, Debug)]
pub struct Painted<T> {
    colours: Colours,
    style: Style,
    text: T,
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.colours {
            Colours::On => write!(f, "\x1b[{}m{}\x1b[0m", self.style.code(), self.text),
            Colours::Off => self.text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_and_no_wish_against_them() {
        let decide = |terminal, no_color: Option<&str>, term: Option<&str>| {
            Colours::decide(terminal, no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert_eq!(decide(true, None, Some("xterm")), Colours::On);
        assert_eq!(decide(true, Some(""), None), Colours::On);
        assert_eq!(decide(true, Some("0"), Some("xterm")), Colours::Off);
        assert_eq!(decide(true, None, Some("dumb")), Colours::Off);
        assert_eq!(decide(false, None, Some("xterm")), Colours::Off);
    }

    #[test]
    fn without_colours_a_text_stays_plain() {
        assert_eq!(Colours::Off.paint(Style::Red, "x").to_string(), "x");
        assert_eq!(Colours::On.paint(Style::Red, "x").to_string(), "\x1b[1;31mx\x1b[0m");
    }
}
