//! Records that come too late for their windows, on a way of their own.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::Result;
use crate::record::Record;
use crate::topology::{Processor, ProcessorContext, ProcessorInit};
use crate::window::{Window, Windowed};

type Waiting<K, V> = RefCell<Vec<Record<Windowed<K>, V>>>;

/// Where an aggregation leaves the records that it drops; the next child of its parent takes them up. Empty between two
/// records.
pub(crate) struct LateRecords<K, V>(Option<Rc<Waiting<K, V>>>);

impl<K: 'static, V: 'static> LateRecords<K, V> {
    /// Under the name that both know; none: nobody wants them.
    pub(crate) fn open(init: &mut ProcessorInit<'_>, name: Option<&Arc<str>>) -> Result<Self> {
        name.map(|name| init.task.shared(name)).transpose().map(LateRecords)
    }

    /// Whether anybody wants them: who needs the record for something else copies it only then.
    pub(crate) fn are_wanted(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn add(&self, record: Record<K, V>, window: Window) {
        if let Some(waiting) = &self.0 {
            let Record { key, value, timestamp, headers } = record;
            waiting.borrow_mut().push(Record { key: Windowed { key, window }, value, timestamp, headers });
        }
    }
}

/// Forwards what the aggregation before it, with the same parent, has dropped of the same record.
pub(crate) struct ForwardLate<K, V>(Rc<Waiting<K, V>>);

impl<K: 'static, V: 'static> ForwardLate<K, V> {
    pub(crate) fn new(init: &mut ProcessorInit<'_>, name: &Arc<str>) -> Result<Self> {
        init.task.shared(name).map(ForwardLate)
    }
}

impl<K: 'static, V: 'static> Processor<K, V> for ForwardLate<K, V> {
    type KeyOut = Windowed<K>;
    type ValueOut = V;

    fn process(&mut self, _: Record<K, V>, ctx: &mut ProcessorContext<'_, Windowed<K>, V>) -> Result<()> {
        let late = std::mem::take(&mut *self.0.borrow_mut());
        late.into_iter().try_for_each(|record| ctx.forward(record))
    }
}
