//! Commands to window, session and versioned stores, and their answers (section 8 of the format).

use kstreams::{
    Error, Record, Result, SessionStore, StoreContext, TimestampedWindowStore, ValueAndTimestamp, VersionPut,
    VersionedKeyValueStore, VersionedRecord, Window, WindowStore, Windowed,
};

use crate::store_commands::{argument, bound, shown};
use crate::stores::show_row;
use crate::value::Val;

struct Command {
    name: String,
    args: Vec<String>,
}

impl Command {
    fn of(record: &Record<Val, Val>) -> Command {
        let text = record.value.show();
        let mut words = text.split_whitespace().map(str::to_owned);
        Command { name: words.next().unwrap_or_default(), args: words.collect() }
    }

    fn text(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    fn number(&self, at: usize) -> Result<i64> {
        self.text(at).parse().map_err(|error| Error::user(format!("{} {:?}: {error}", self.name, self.args)))
    }

    fn unknown(&self) -> Error {
        Error::user(format!("unknown command {}", self.name))
    }
}

pub(crate) fn window<C: StoreContext>(
    store: &mut WindowStore<Val, Val>,
    ctx: &mut C,
    record: &Record<Val, Val>,
) -> Result<String> {
    let command = Command::of(record);
    if command.name == "put" {
        store.put(ctx, &record.key, &argument(command.text(0)), command.number(1)?)?;
        return Ok("ok".to_owned());
    }
    read_window(store, ctx, &record.key, &command, |value| value.show())
}

pub(crate) fn timestamped_window<C: StoreContext>(
    store: &mut TimestampedWindowStore<Val, Val>,
    ctx: &mut C,
    record: &Record<Val, Val>,
) -> Result<String> {
    let command = Command::of(record);
    if command.name == "put" {
        let (value, timestamp) = (argument(command.text(0)), record.timestamp);
        store.put(ctx, &record.key, &ValueAndTimestamp { value, timestamp }, command.number(1)?)?;
        return Ok("ok".to_owned());
    }
    read_window(store, ctx, &record.key, &command, show_row)
}

fn read_window<C: StoreContext, V: 'static>(
    store: &mut WindowStore<Val, V>,
    ctx: &mut C,
    key: &Val,
    command: &Command,
    show: impl Fn(&V) -> String,
) -> Result<String> {
    let number = |at| command.number(at);
    let keys = (bound(command.text(0)), bound(command.text(1)));
    let rows = match command.name.as_str() {
        "fetch" => {
            let row = store.fetch(ctx, key, number(0)?)?;
            return Ok(row.map_or("null".to_owned(), |row| show(&row)));
        }
        "fetch_range" | "backward_fetch" => {
            let (from, to) = (number(0)?, number(1)?);
            let rows = match command.name.as_str() {
                "fetch_range" => store.fetch_range(key, from, to)?,
                _ => store.backward_fetch(key, from, to)?,
            };
            let rows: Vec<_> =
                rows.collect(ctx)?.iter().map(|(start, value)| format!("{start}={}", show(value))).collect();
            return Ok(format!("[{}]", rows.join(" ")));
        }
        "fetch_keys" => store.fetch_keys(keys, number(2)?, number(3)?)?,
        "backward_fetch_keys" => store.backward_fetch_keys(keys, number(2)?, number(3)?)?,
        "fetch_all" => store.fetch_all(number(0)?, number(1)?),
        "backward_fetch_all" => store.backward_fetch_all(number(0)?, number(1)?),
        "all" => store.all(),
        "backward_all" => store.backward_all(),
        _ => return Err(command.unknown()),
    };
    Ok(windowed_rows(&rows.collect(ctx)?, show))
}

pub(crate) fn session<C: StoreContext>(
    store: &mut SessionStore<Val, Val>,
    ctx: &mut C,
    record: &Record<Val, Val>,
) -> Result<String> {
    let command = Command::of(record);
    let (key, number) = (&record.key, |at| command.number(at));
    let session = |at| {
        let window = Window { start: number(at)?, end: number(at + 1)? };
        Ok::<_, Error>(Windowed { key: key.clone(), window })
    };
    let keys = (bound(command.text(0)), bound(command.text(1)));
    let rows = match command.name.as_str() {
        "put" => {
            store.put(ctx, &session(1)?, &argument(command.text(0)))?;
            return Ok("ok".to_owned());
        }
        "remove" => {
            store.remove(ctx, &session(0)?)?;
            return Ok("ok".to_owned());
        }
        "fetch_session" => return Ok(shown(store.fetch_session(ctx, key, number(0)?, number(1)?)?)),
        "find" => store.find_sessions(key, number(0)?, number(1)?)?,
        "backward_find" => store.backward_find_sessions(key, number(0)?, number(1)?)?,
        "find_keys" => store.find_sessions_of_keys(keys, number(2)?, number(3)?)?,
        "backward_find_keys" => store.backward_find_sessions_of_keys(keys, number(2)?, number(3)?)?,
        "fetch" => store.fetch(key)?,
        "backward_fetch" => store.backward_fetch(key)?,
        "fetch_keys" => store.fetch_keys(keys)?,
        "backward_fetch_keys" => store.backward_fetch_keys(keys)?,
        _ => return Err(command.unknown()),
    };
    Ok(windowed_rows(&rows.collect(ctx)?, Val::show))
}

pub(crate) fn versioned<C: StoreContext>(
    store: &mut VersionedKeyValueStore<Val, Val>,
    ctx: &mut C,
    record: &Record<Val, Val>,
) -> Result<String> {
    let command = Command::of(record);
    let key = &record.key;
    Ok(match command.name.as_str() {
        "put" => match store.put(ctx, key, Some(&argument(command.text(0))), command.number(1)?)? {
            VersionPut::Latest => "latest".to_owned(),
            VersionPut::ValidTo(time) => format!("valid_to {time}"),
            VersionPut::NotPut => "not_put".to_owned(),
        },
        "delete" => show_version(store.delete(ctx, key, command.number(0)?)?),
        "get" => show_version(store.get(ctx, key)?),
        "get_as_of" => show_version(store.get_as_of(ctx, key, command.number(0)?)?),
        _ => return Err(command.unknown()),
    })
}

/// Java's store does not say up to when a version is valid (`MeteredVersionedKeyValueStore` drops it); ours does.
fn show_version(version: Option<VersionedRecord<Val>>) -> String {
    version.map_or("null".to_owned(), |version| format!("{}@{}..", version.value.show(), version.timestamp))
}

fn windowed_rows<V>(rows: &[(Windowed<Val>, V)], show: impl Fn(&V) -> String) -> String {
    let row = |(key, value): &(Windowed<Val>, V)| {
        format!("{}@{}/{}={}", key.key.show(), key.window.start, key.window.end, show(value))
    };
    format!("[{}]", rows.iter().map(row).collect::<Vec<_>>().join(" "))
}
