//! What the handles of tables have in common: a node, a store that may only come later, and a way to read the rows.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::KTable;
use super::builder::Graph;
use crate::operators::table::{TableSource, ViewMaker};
use crate::operators::table_store::TableStoreSpec;
use crate::serdes::DynSerde;
use crate::state::StoreSpec;
use crate::topology::{NodeId, NodeSpec, TopologyBuilder};

/// A store as an operator was told of it.
pub(super) struct TableStoreOption<K, V> {
    pub spec: TableStoreSpec<K, V>,
    /// Whether the user named it: it exists, and can be queried.
    pub is_named: bool,
}

/// Gives the stores that a reader needs.
type Materialize = Rc<dyn Fn(&mut TopologyBuilder) -> Vec<Arc<str>>>;

/// Makes the changes say what a row was before; whether they do now.
type SendOldValues = Rc<dyn Fn(&mut TopologyBuilder, OldValues) -> bool>;

/// How much somebody behind a table wants to know what its rows were before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldValues {
    /// If there is a store that knows it in any case.
    IfStored,
    /// A store is made for it if there is none.
    Needed,
}

/// What others can do with a table, whatever made it.
pub(super) struct Table<K, V> {
    pub key: DynSerde<K>,
    pub value: Option<DynSerde<V>>,
    pub queryable: Option<String>,
    /// Whether changes may come out of order: its rows, or those that it is made of, have versions (KIP-914).
    pub is_versioned: bool,
    /// Reads the rows, from the task's side.
    pub view: ViewMaker<K, V>,
    /// Makes the rows readable, and says which stores a reader has to be connected to.
    pub materialize: Materialize,
    pub send_old_values: SendOldValues,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Table {
            key: Arc::clone(&self.key),
            value: self.value.as_ref().map(Arc::clone),
            queryable: self.queryable.clone(),
            is_versioned: self.is_versioned,
            view: Arc::clone(&self.view),
            materialize: Rc::clone(&self.materialize),
            send_old_values: Rc::clone(&self.send_old_values),
        }
    }
}

impl<K: 'static, V: 'static> Table<K, V> {
    /// A table with rows of its own: connected now, or by the first who asks.
    pub(super) fn stored(node: NodeId, store: TableStoreOption<K, V>) -> Table<K, V> {
        let TableStoreOption { spec, is_named } = store;
        let (key, value) = (Arc::clone(&spec.key), Some(Arc::clone(&spec.value)));
        let queryable = is_named.then(|| spec.name().to_owned());
        let (view, is_versioned) = (spec.view(), spec.is_versioned());
        let name = Arc::clone(&spec.spec().name);
        let connect = Rc::new(move |graph: &mut TopologyBuilder| {
            let store = Arc::clone(&spec.spec().name);
            if !graph.is_connected(node, &store) {
                connect_store(graph, node, &spec, is_named);
            }
            store
        });
        let materialize = Rc::clone(&connect);
        Table {
            key,
            value,
            queryable,
            is_versioned,
            view,
            materialize: Rc::new(move |graph| vec![materialize(graph)]),
            send_old_values: Rc::new(move |graph, old_values| {
                let sends = old_values == OldValues::Needed || graph.is_connected(node, &name);
                if sends {
                    connect(graph);
                    graph.send_old_values(node);
                }
                sends
            }),
        }
    }
}

impl<K: 'static, V: 'static> Table<K, V> {
    /// A table whose store is there from the start. `nodes` send its changes.
    pub(super) fn aggregated(
        nodes: Vec<NodeId>,
        store: &StoreSpec,
        is_named: bool,
        (key, value): (DynSerde<K>, DynSerde<V>),
        view: ViewMaker<K, V>,
    ) -> Table<K, V> {
        let name = Arc::clone(&store.name);
        Table {
            key,
            value: Some(value),
            queryable: is_named.then(|| name.to_string()),
            is_versioned: false,
            view,
            materialize: Rc::new(move |_| vec![Arc::clone(&name)]),
            send_old_values: Rc::new(move |graph, _| {
                nodes.iter().for_each(|node| graph.send_old_values(*node));
                true
            }),
        }
    }
}

/// Adds a table's store and connects the operator that writes it.
pub(super) fn connect_store<K, V>(
    graph: &mut TopologyBuilder,
    node: NodeId,
    spec: &TableStoreSpec<K, V>,
    is_named: bool,
) {
    if let Some(missing) = &spec.missing {
        graph.mistake(missing.to_string());
    }
    add_and_connect(graph, node, spec.spec(), is_named);
}

/// The same for a store of any kind.
pub(super) fn add_and_connect(graph: &mut TopologyBuilder, node: NodeId, store: &Arc<StoreSpec>, is_named: bool) {
    graph.add_store(Arc::clone(store));
    graph.note_table_store(&store.name);
    graph.connect_node(node, &store.name);
    if !is_named {
        graph.generated(format!("store {} (name it with Materialized::named)", store.name));
    }
}

/// A table of the last values of a stream: of a topic, or of any stream that is made a table.
pub(super) fn table_source<K: 'static, V: Into<Option<T>> + 'static, T: 'static>(
    handle: &Graph,
    graph: &mut TopologyBuilder,
    name: &str,
    parent: NodeId,
    store: TableStoreOption<K, T>,
) -> KTable<K, T> {
    let spec = store.spec.clone();
    let make = move |init: &mut crate::topology::ProcessorInit<'_>| {
        let rows = spec.open_if_connected(init)?;
        let (key, value) = (Arc::clone(&spec.key), Some(Arc::clone(&spec.value)));
        Ok(TableSource::<K, V, T> { name: init.node_name(), key, rows, value, out_of_order: 0, types: PhantomData })
    };
    let node = graph.append(NodeSpec::processor::<K, V, _>(name, make), &[parent]);
    // Rows that expire have to be there to do so.
    if store.is_named || store.spec.spec().ttl_ms.is_some() {
        connect_store(graph, node, &store.spec, store.is_named);
    }
    KTable::new(handle, node, Table::stored(node, store))
}
