//! Cases that wire nodes by name (section 5 of the format).

use std::collections::BTreeMap;

use kstreams::TopologyBuilder;
use serde_json::Value as Json;

use crate::build::{Built, NotBuilt, consumed, list, produced, text, topics};
use crate::outcome::{inexpressible, missing};
use crate::processors::Script;
use crate::stores::{StoreDecl, Stores, each_store};
use crate::value::Val;
use crate::{functions, global};

pub(crate) fn build(case: &Json) -> Result<Built, NotBuilt> {
    let ops = case["topology"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut builder = TopologyBuilder::new();
    // Processors may come before the stores that they use.
    let mut stores = Stores::default();
    for op in ops {
        let own = op["own_stores"].as_array().into_iter().flatten();
        for spec in op.get("store").into_iter().chain(own) {
            stores.add(StoreDecl::parse(spec)?);
        }
    }
    for op in ops {
        let (name, parents) = (text(op, "name"), list(op, "parents"));
        match text(op, "op") {
            "add_source" if op.get("pattern").is_some() => {
                builder.add_source_matching(name, text(op, "pattern"), consumed(op, &case["config"])?);
            }
            "add_source" => {
                builder.add_source(name, &topics(op)?, consumed(op, &case["config"])?);
            }
            "add_processor" => {
                if op["same_instance"] == Json::Bool(true) {
                    return Err(inexpressible("one_processor_for_two_tasks").into());
                }
                let script = Script::parse(&op["processor"], &stores)?;
                builder.add_processor(name, move |init| script.make(init), &parents);
                for spec in op["own_stores"].as_array().into_iter().flatten() {
                    add_store(&mut builder, &StoreDecl::parse(spec)?, &[name]);
                }
            }
            "add_sink" => match op.get("topic_fn") {
                Some(function) => {
                    builder.add_sink(name, functions::topic_function::<Val>(function)?, produced(op)?, &parents);
                }
                None => {
                    builder.add_sink(name, text(op, "topic"), produced::<Val>(op)?, &parents);
                }
            },
            "add_store" => add_store(&mut builder, &StoreDecl::parse(&op["store"])?, &list(op, "processors")),
            "connect" => {
                builder.connect(text(op, "processor"), &list(op, "stores"));
            }
            "add_global_store" | "add_read_only_store" => {
                global::add_fed_store(&mut builder, op, &stores, &case["config"])?;
            }
            other => return Err(missing(format!("op {other}")).into()),
        }
    }
    Ok(Built { topology: builder.build()?, branches: BTreeMap::new(), queryable: BTreeMap::new() })
}

fn add_store(builder: &mut TopologyBuilder, store: &StoreDecl, processors: &[&str]) {
    each_store!(store, store => {
        builder.add_state_store(store, processors);
    });
}
