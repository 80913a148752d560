//! The one error that somebody branches on: a mistake in what the user handed us. It ends in exit code 2.
use std::fmt;

/// A mistake in the input. Its text names the file, key or tensor, and the valid values.
#[derive(Debug)]
pub struct Mistake(pub String);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Mistake {}

/// `bail!`, for a mistake of the user's.
#[macro_export]
macro_rules! mistake {
    ($($arg:tt)*) => { return Err(anyhow::Error::new($crate::mistake::Mistake(format!($($arg)*)))) };
}

/// Whether a mistake is among an error's causes.
pub fn is_mistake(error: &anyhow::Error) -> bool {
    error.chain().any(|e| e.is::<Mistake>()) || error.downcast_ref::<Mistake>().is_some()
}

/// Says of any error that it is the user's to mend, keeping its text.
pub trait Blame<T> {
    /// The error, its chain folded into one line, as a [`Mistake`].
    fn blame(self, context: impl fmt::Display) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for Result<T, E> {
    fn blame(self, context: impl fmt::Display) -> anyhow::Result<T> {
        self.map_err(|e| {
            let error: anyhow::Error = e.into();
            anyhow::Error::new(Mistake(format!("{context}: {error:#}")))
        })
    }
}

/// The nearest of `known` to a misspelt `name`, as ` (did you mean ...?)`, or nothing.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&name.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(d, k)| *d <= 1 + k.len() / 3)
        .min()
        .map_or(String::new(), |(_, k)| format!(" (did you mean `{k}`?)"))
}
