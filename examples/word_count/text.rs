//! A text file as lines that fit a record, whatever bytes are in it.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A longer line becomes several records: Kafka takes records up to 1 MB.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The words of a line, in lower case.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

pub(crate) struct TextFile {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    pub(crate) lines: u64,
    bytes: u64,
    /// Lines with bytes that are no UTF-8.
    mended: u64,
}

impl TextFile {
    pub(crate) fn open(path: &Path) -> Result<TextFile> {
        let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
        ensure!(!file.metadata()?.is_dir(), "{} is a directory: name a text file", path.display());
        let reader = BufReader::with_capacity(LINE_BYTES_MAX, file);
        Ok(TextFile { path: path.to_owned(), reader, line: Vec::new(), lines: 0, bytes: 0, mended: 0 })
    }

    /// The next line, or part of a very long one. Bytes that are no UTF-8 become U+FFFD, which is in no word.
    pub(crate) fn next_line(&mut self) -> Result<Option<String>> {
        self.line.clear();
        loop {
            let bytes = self.reader.fill_buf().with_context(|| format!("could not read {}", self.path.display()))?;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let room = LINE_BYTES_MAX - self.line.len();
            // Where a line has to be cut, it is cut behind its last blank.
            let cut = end.map_or(bytes.len(), |end| end + 1).min(room);
            let is_full = end.is_none_or(|end| end >= room) && cut == room;
            let blank = bytes.iter().take(cut).rposition(|byte| byte.is_ascii_whitespace());
            let taken = if is_full { blank.map_or(cut, |blank| blank + 1) } else { cut };
            self.line.extend(bytes.iter().take(taken));
            self.reader.consume(taken);
            self.bytes += taken as u64;
            if taken == 0 || is_full || end.is_some() {
                break;
            }
        }
        if self.line.is_empty() {
            return Ok(None);
        }
        self.lines += 1;
        let line = String::from_utf8_lossy(&self.line);
        if matches!(line, std::borrow::Cow::Owned(_)) {
            self.mended += 1;
        }
        Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

impl fmt::Display for TextFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} lines, {} bytes", self.path.display(), self.lines, self.bytes)?;
        if self.mended > 0 {
            write!(f, ", {} of the lines with bytes that are no UTF-8", self.mended)?;
        }
        Ok(())
    }
}
