//! What the ops ask of a key: a dynamic value, or one with a window.

use std::fmt;

use kstreams::{
    BufferConfig, KGroupedStream, Serde, SessionWindowedSerde, ShutDown, Suppressed, TimeWindowedSerde, Window,
    Windowed,
};

use crate::dsl::{Builder, Codecs, Handle, Stream, Table};
use crate::outcome::{Stop, inexpressible, missing};
use crate::value::{Codec, Val};

/// The keys that streams and tables of the cases have.
pub(crate) trait Key: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    type Codec: Serde<Item = Self> + Clone;

    /// Reads and writes such keys.
    fn codec(codec: &Codec) -> Result<Self::Codec, Stop>;

    /// As the functions of the cases take it.
    fn val(&self) -> Val;

    fn stream(stream: Stream<Self>) -> Handle;

    fn table(table: Table<Self>) -> Handle;

    fn stream_of(builder: &Builder<'_>, id: &str) -> Result<Stream<Self>, Stop>;

    fn grouped(grouped: KGroupedStream<Self, Val>, codecs: Codecs) -> Handle;

    fn grouped_of(builder: &Builder<'_>, id: &str) -> Result<KGroupedStream<Self, Val>, Stop>;

    fn until_window_closes(buffer: BufferConfig<ShutDown>) -> Result<Suppressed<Self, Val>, Stop>;
}

impl Key for Val {
    type Codec = Codec;

    fn codec(codec: &Codec) -> Result<Codec, Stop> {
        Ok(codec.clone())
    }

    fn val(&self) -> Val {
        self.clone()
    }

    fn stream(stream: Stream<Val>) -> Handle {
        Handle::Stream(stream)
    }

    fn table(table: Table<Val>) -> Handle {
        Handle::Table(table)
    }

    fn stream_of(builder: &Builder<'_>, id: &str) -> Result<Stream<Val>, Stop> {
        builder.stream_of(id)
    }

    fn grouped(grouped: KGroupedStream<Val, Val>, codecs: Codecs) -> Handle {
        Handle::Grouped(grouped, codecs)
    }

    fn grouped_of(builder: &Builder<'_>, id: &str) -> Result<KGroupedStream<Val, Val>, Stop> {
        match builder.handle(id)? {
            Handle::Grouped(grouped, _) => Ok(grouped),
            _ => Err(missing(format!("input {id} as a grouped stream"))),
        }
    }

    fn until_window_closes(_: BufferConfig<ShutDown>) -> Result<Suppressed<Val, Val>, Stop> {
        Err(inexpressible("waiting_for_windows_that_are_not_there"))
    }
}

impl Key for Windowed<Val> {
    type Codec = WindowedCodec;

    fn codec(codec: &Codec) -> Result<WindowedCodec, Stop> {
        match codec {
            Codec::TimeWindowed(inner, size) => {
                let size = std::time::Duration::from_millis((*size).try_into().unwrap_or(0));
                Ok(WindowedCodec::Time(TimeWindowedSerde::new((**inner).clone(), size)))
            }
            Codec::SessionWindowed(inner) => Ok(WindowedCodec::Session(SessionWindowedSerde::new((**inner).clone()))),
            other => Err(missing(format!("codec {other:?} for windowed keys"))),
        }
    }

    fn val(&self) -> Val {
        let Window { start, end } = self.window;
        Val::Windowed { key: Box::new(self.key.clone()), start, end }
    }

    fn stream(stream: Stream<Windowed<Val>>) -> Handle {
        Handle::WindowedStream(stream)
    }

    fn table(table: Table<Windowed<Val>>) -> Handle {
        Handle::WindowedTable(table)
    }

    fn stream_of(builder: &Builder<'_>, id: &str) -> Result<Stream<Windowed<Val>>, Stop> {
        match builder.handle(id)? {
            Handle::WindowedStream(stream) => Ok(stream),
            _ => Err(missing(format!("input {id} as a stream of windowed keys"))),
        }
    }

    fn grouped(grouped: KGroupedStream<Windowed<Val>, Val>, codecs: Codecs) -> Handle {
        Handle::WindowedGrouped(grouped, codecs)
    }

    fn grouped_of(builder: &Builder<'_>, id: &str) -> Result<KGroupedStream<Windowed<Val>, Val>, Stop> {
        match builder.handle(id)? {
            Handle::WindowedGrouped(grouped, _) => Ok(grouped),
            _ => Err(missing(format!("input {id} as a grouped stream with windowed keys"))),
        }
    }

    fn until_window_closes(buffer: BufferConfig<ShutDown>) -> Result<Suppressed<Windowed<Val>, Val>, Stop> {
        Ok(Suppressed::until_window_closes(buffer))
    }
}

/// The library's serdes of windowed keys.
#[derive(Debug, Clone)]
pub(crate) enum WindowedCodec {
    Time(TimeWindowedSerde<Codec>),
    Session(SessionWindowedSerde<Codec>),
}

impl Serde for WindowedCodec {
    type Item = Windowed<Val>;

    fn serialize(&self, item: &Windowed<Val>, bytes: &mut Vec<u8>) -> kstreams::Result<()> {
        match self {
            WindowedCodec::Time(serde) => serde.serialize(item, bytes),
            WindowedCodec::Session(serde) => serde.serialize(item, bytes),
        }
    }

    fn deserialize(&self, bytes: &[u8]) -> kstreams::Result<Windowed<Val>> {
        match self {
            WindowedCodec::Time(serde) => serde.deserialize(bytes),
            WindowedCodec::Session(serde) => serde.deserialize(bytes),
        }
    }

    fn null(&self) -> Option<Windowed<Val>> {
        match self {
            WindowedCodec::Time(serde) => serde.null(),
            WindowedCodec::Session(serde) => serde.null(),
        }
    }

    fn is_null(&self, item: &Windowed<Val>) -> bool {
        item.key.is_null()
    }

    fn window_bytes(&self) -> usize {
        match self {
            WindowedCodec::Time(serde) => serde.window_bytes(),
            WindowedCodec::Session(serde) => serde.window_bytes(),
        }
    }
}
