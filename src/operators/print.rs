//! Writes records for people.

use std::any::Any;
use std::fmt::Debug;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::record::Record;
use crate::topology::{Processor, ProcessorContext};

/// How a record is shown.
pub(crate) type Show<K, V> = Arc<dyn Fn(&K, &V) -> String + Send + Sync>;

/// Text as Java writes it, without quotes; anything else as `Debug` has it.
pub(crate) fn plain<T: Debug + 'static>(part: &T) -> String {
    let any: &dyn Any = part;
    if let Some(text) = any.downcast_ref::<String>() {
        return text.clone();
    }
    match any.downcast_ref::<Option<String>>() {
        Some(text) => text.as_deref().unwrap_or("null").to_owned(),
        None => any.downcast_ref::<&'static str>().map_or_else(|| format!("{part:?}"), |text| (*text).to_owned()),
    }
}

/// Where the lines go. All tasks of a topology share it, line by line.
#[derive(Clone)]
pub(crate) enum PrintTarget {
    Stdout,
    /// Opened by the first line: a topology that is only described leaves no file behind.
    File(Arc<Mutex<LineFile>>),
}

pub(crate) struct LineFile {
    path: std::path::PathBuf,
    file: Option<BufWriter<File>>,
}

impl LineFile {
    pub(crate) fn new(path: std::path::PathBuf) -> LineFile {
        LineFile { path, file: None }
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(BufWriter::new(File::create(&self.path)?)),
        };
        file.write_all(line.as_bytes())?;
        file.flush()
    }
}

impl PrintTarget {
    fn write(&self, line: &str) -> Result<()> {
        let (written, place) = match self {
            PrintTarget::Stdout => (std::io::stdout().lock().write_all(line.as_bytes()), "standard output".to_owned()),
            PrintTarget::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                (file.write(line), file.path.display().to_string())
            }
        };
        written.map_err(|error| {
            Error::new(crate::ErrorKind::Unavailable, format!("could not print to {place}")).with_source(error)
        })
    }
}

/// Writes `[label]: key, value` for each record; the end of a stream.
pub(crate) struct Print<K, V> {
    pub label: Arc<str>,
    pub show: Show<K, V>,
    pub target: PrintTarget,
}

impl<K: 'static, V: 'static> Processor<K, V> for Print<K, V> {
    type KeyOut = K;
    type ValueOut = V;

    fn process(&mut self, record: Record<K, V>, _: &mut ProcessorContext<'_, K, V>) -> Result<()> {
        self.target.write(&format!("[{}]: {}\n", self.label, (self.show)(&record.key, &record.value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_written_without_quotes() {
        assert_eq!(plain(&"a".to_owned()), "a");
        assert_eq!((plain(&Some("a".to_owned())), plain(&None::<String>)), ("a".to_owned(), "null".to_owned()));
        assert_eq!((plain(&"a"), plain(&7)), ("a".to_owned(), "7".to_owned()));
        assert_eq!(plain(&vec!["a"]), "[\"a\"]");
    }

    #[test]
    fn a_file_is_made_by_its_first_line_and_an_error_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let target = |path: &std::path::Path| PrintTarget::File(Arc::new(Mutex::new(LineFile::new(path.to_owned()))));
        let file = target(&path);
        assert!(!path.exists());
        file.write("a\n").unwrap();
        file.clone().write("b\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
        let error = target(dir.path()).write("a\n").unwrap_err();
        assert!(error.to_string().contains(&format!("could not print to {}", dir.path().display())));
    }
}
