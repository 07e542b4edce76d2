//! What a person sees: lines, and a table that is refreshed in place where the output is a terminal.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use crate::model::{Booking, Totals};

/// Between two tables in a file or a pipe, which keep all of them.
const STEP: Duration = Duration::from_millis(2500);
/// Between two tables in a terminal, where one takes the place of the other.
const REFRESH: Duration = Duration::from_millis(250);

pub(crate) struct Screen {
    is_terminal: bool,
    shown: Option<Instant>,
    /// Lines of the last block, which the next one takes the place of.
    lines: usize,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        Screen { is_terminal: stdout().is_terminal(), shown: None, lines: 0 }
    }

    /// Shows a block when it is time for one.
    pub(crate) fn show(&mut self, block: impl FnOnce() -> String) {
        let every = if self.is_terminal { REFRESH } else { STEP };
        if self.shown.is_none_or(|shown| shown.elapsed() >= every) {
            self.show_now(&block());
        }
    }

    pub(crate) fn show_now(&mut self, block: &str) {
        self.shown = Some(Instant::now());
        let back =
            if self.is_terminal && self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
        say(&format!("{back}{block}"));
        self.lines = block.lines().count();
    }

    /// Whatever follows stands below the last block.
    pub(crate) fn keep(&mut self) {
        self.lines = 0;
    }
}

/// A line at once, also into a pipe. Nobody reading is no reason to stop.
pub(crate) fn say(text: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

pub(crate) fn totals_table(totals: &BTreeMap<String, Totals>) -> String {
    let mut table =
        format!("    {:<10}{:>8}{:>14}{:>10}{:>14}{:>12}", "customer", "orders", "ordered", "payments", "paid", "open");
    for row in totals.values() {
        let open = i128::from(row.ordered_cents) - i128::from(row.paid_cents);
        table.push_str(&format!(
            "\n    {:<10}{:>8}{:>14}{:>10}{:>14}{:>12}",
            row.name,
            row.orders,
            money(row.ordered_cents),
            row.payments,
            money(row.paid_cents),
            if open < 0 { format!("-{}", money(open.unsigned_abs())) } else { money(open.unsigned_abs()) },
        ));
    }
    table
}

pub(crate) fn booking_line(booking: &Booking) -> String {
    match booking {
        Booking::Ordered { order, customer } => format!(
            "order {} + {} -> {}, {}: {} x {}, {}",
            order.id,
            order.customer,
            customer.name,
            customer.city,
            order.quantity,
            order.article,
            money(order.cents),
        ),
        Booking::Paid { payment, customer } => format!(
            "payment {} + {} -> {}, {}: {}",
            payment.order,
            payment.customer,
            customer.name,
            customer.city,
            money(payment.cents),
        ),
    }
}

/// `1234567` cents as `12,345.67`.
pub(crate) fn money(cents: impl Into<u128>) -> String {
    let cents = cents.into();
    format!("{}.{:02}", grouped(cents / 100), cents % 100)
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
