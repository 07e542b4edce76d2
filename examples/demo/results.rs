//! The results as a read_committed consumer sees them, and their comparison with what the generator says.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kstreams::EmbeddedCluster;

use crate::model::{TOTALS, Totals, expected};
use crate::screen::{grouped, money, say};

/// Every committed update of each customer, in order.
pub(crate) fn committed_updates(cluster: &EmbeddedCluster) -> Result<BTreeMap<String, Vec<Totals>>> {
    let mut updates = BTreeMap::<String, Vec<Totals>>::new();
    for record in cluster.read_committed(TOTALS)? {
        let place = format!("{TOTALS}[{}]@{}", record.partition, record.offset);
        let key = record.key.with_context(|| format!("{place} has no key"))?;
        let value = record.value.with_context(|| format!("{place} has no value"))?;
        let totals = serde_json::from_slice(&value).with_context(|| format!("{place} is no JSON of totals"))?;
        updates.entry(String::from_utf8(key)?).or_default().push(totals);
    }
    Ok(updates)
}

/// The newest committed totals of each customer.
pub(crate) fn committed_totals(cluster: &EmbeddedCluster) -> Result<BTreeMap<String, Totals>> {
    let updates = committed_updates(cluster)?;
    Ok(updates.into_iter().filter_map(|(customer, mut updates)| Some((customer, updates.pop()?))).collect())
}

/// Updates that were written and that no read_committed reader sees: in an open transaction, or in an aborted one.
pub(crate) fn hidden_updates(cluster: &EmbeddedCluster) -> Result<usize> {
    Ok(cluster.records(TOTALS)?.len().saturating_sub(cluster.read_committed(TOTALS)?.len()))
}

/// Compares everything with the generator, tells of each customer, and says whether it is all as it must be.
pub(crate) fn verify(cluster: &EmbeddedCluster) -> Result<bool> {
    let mut updates = committed_updates(cluster)?;
    let mut wrong = Vec::new();
    let (mut sum, mut update_count, mut customers) = (Totals::default(), 0_u64, 0_u64);
    for (id, expected) in expected() {
        let found = updates.remove(&id).unwrap_or_default();
        let last = found.last().cloned().unwrap_or_default();
        say(&format!(
            "    {:<10}{:>8} orders {:>12}{:>8} payments {:>12}{:>8} updates",
            expected.name,
            last.orders,
            money(last.ordered_cents),
            last.payments,
            money(last.paid_cents),
            found.len(),
        ));
        if last != expected {
            wrong.push(format!("{}: the totals are {last:?}, and must be {expected:?}", expected.name));
        }
        // Each update counts one booking more than the one before it: what is lost or doubled on the way shows here.
        let counts = found.iter().map(Totals::bookings);
        if let Some((must, is)) = (1..).zip(counts).find(|(must, is)| must != is) {
            wrong.push(format!("{}: update {must} says that it is number {is}", expected.name));
        }
        update_count += found.len() as u64;
        customers += 1;
        sum.orders += last.orders;
        sum.ordered_cents += last.ordered_cents;
        sum.payments += last.payments;
        sum.paid_cents += last.paid_cents;
    }
    wrong.extend(updates.keys().map(|id| format!("{id}: has totals, and is no customer")));
    for difference in &wrong {
        say(&format!("  WRONG  {difference}"));
    }
    say("");
    if wrong.is_empty() {
        say(&format!(
            "every total is exact: {customers} customers, {} orders for {}, {} payments of {}; {} updates, none missing, \
             none twice",
            grouped(sum.orders),
            money(sum.ordered_cents),
            grouped(sum.payments),
            money(sum.paid_cents),
            grouped(update_count),
        ));
    } else {
        say(&format!("{} differences between the results and the generator: see above", wrong.len()));
    }
    Ok(wrong.is_empty())
}
