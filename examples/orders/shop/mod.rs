//! The shop: its records, its services, each as a microservice would be written, and what they have in common.

pub(crate) mod check_details;
pub(crate) mod check_fraud;
#[cfg(feature = "query-http")]
pub(crate) mod client;
#[cfg(feature = "query-http")]
pub(crate) mod ecosystem;
pub(crate) mod emails;
pub(crate) mod enrichment;
#[cfg(feature = "query-http")]
pub(crate) mod feed;
pub(crate) mod inventory;
#[cfg(feature = "query-http")]
pub(crate) mod load;
pub(crate) mod model;
#[cfg(feature = "query-http")]
pub(crate) mod openapi;
pub(crate) mod orders;
pub(crate) mod payments;
#[cfg(feature = "query-http")]
pub(crate) mod rest;
pub(crate) mod rewind;
pub(crate) mod validator;

use std::fmt;

use kstreams::{Result, Topology};

/// A service of the shop: an application of its own, which knows the others by their topics only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Orders,
    Inventory,
    Fraud,
    Details,
    Validator,
    Payments,
    Enrichment,
    Emails,
}

impl Service {
    pub(crate) const ALL: [Service; 8] = [
        Service::Orders,
        Service::Inventory,
        Service::Fraud,
        Service::Details,
        Service::Validator,
        Service::Payments,
        Service::Enrichment,
        Service::Emails,
    ];

    /// The application id, and what the command line calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Orders => "orders",
            Service::Inventory => "inventory",
            Service::Fraud => "fraud",
            Service::Details => "details",
            Service::Validator => "validator",
            Service::Payments => "payments",
            Service::Enrichment => "enrichment",
            Service::Emails => "emails",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Service> {
        Service::ALL.into_iter().find(|service| service.name() == name)
    }

    pub(crate) fn topology(self) -> Result<Topology> {
        match self {
            Service::Orders => orders::topology(),
            Service::Inventory => inventory::topology(),
            Service::Fraud => check_fraud::topology(),
            Service::Details => check_details::topology(),
            Service::Validator => validator::topology(),
            Service::Payments => payments::topology(),
            Service::Enrichment => enrichment::topology(),
            Service::Emails => emails::topology(),
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
