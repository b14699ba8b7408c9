//! Which account a number is of, where one process calls for several: the label `account`.
//!
//! A label's values must have a bound. So only the first accounts, up to `metrics.accounts_max`, have gauges of their own and
//! are named in counters; what the others do is counted as `other`. Where there is one account only, no number has the label.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use metrics::Label;

use super::{
    ACCOUNT_WAITS, CONCURRENCY, CONSUMING, FROM_START, JOBS, KEY_ENDPOINT_DOWN, PACE_CONFIGURED,
    PACE_CURRENT, PACE_PAUSED, PARKED, QUEUE_AGE, REFUSED_ALIKE, STRIPE_DOWN, UNSETTLED, UNSETTLED_OLDEST,
};

/// The gauges of an account, but for those with further labels.
const GAUGES: [&str; 13] = [
    ACCOUNT_WAITS,
    CONCURRENCY,
    CONSUMING,
    KEY_ENDPOINT_DOWN,
    PACE_CONFIGURED,
    PACE_CURRENT,
    PACE_PAUSED,
    PARKED,
    QUEUE_AGE,
    REFUSED_ALIKE,
    STRIPE_DOWN,
    UNSETTLED,
    UNSETTLED_OLDEST,
];

/// The name of those that are not named.
const OTHER: &str = "other";

/// The accounts that are named; none where there is only one account.
static NAMED: RwLock<Option<HashSet<String>>> = RwLock::new(None);

/// This process calls for several accounts: the first of them, so many with those of before, are named from now on.
pub fn name_accounts<'i>(ids: impl Iterator<Item = &'i str>, accounts_max: usize) {
    let mut named = NAMED.write().unwrap_or_else(PoisonError::into_inner);
    let mut names = if named.is_none() { vec![OTHER.to_owned()] } else { Vec::new() };
    let named = named.get_or_insert_default();
    for id in ids {
        if named.len() < accounts_max && named.insert(id.to_owned()) {
            names.push(id.to_owned());
        }
    }
    // A counter that appears at 1 has never increased, as Prometheus sees it.
    let of_jobs = FROM_START.iter().filter(|(name, _)| *name == JOBS).flat_map(|(_, series)| series.iter());
    for labels in of_jobs {
        for name in &names {
            let labels = labels.iter().map(|(label, value)| Label::new(*label, *value));
            let labels: Vec<Label> = labels.chain([Label::new("account", name.clone())]).collect();
            metrics::counter!(JOBS, labels).increment(0);
        }
    }
}

/// An account is not worked for any more: its gauges are not a number, so that no alert waits for them to change. Its counters
/// stay, and with them its name.
pub fn account_is_gone(account: &str) {
    let queues = ["jobs", "dead"].map(|queue| (super::QUEUE, Some(Label::new("queue", queue))));
    for (gauge, label) in GAUGES.map(|gauge| (gauge, None)).into_iter().chain(queues) {
        if let Some(of_account) = of_gauge(Some(account)) {
            let labels: Vec<Label> = label.into_iter().chain(of_account).collect();
            metrics::gauge!(gauge, labels).set(f64::NAN);
        }
    }
}

/// The labels of an account's gauge; none if it has none, as two accounts' gauges must not be one.
pub(super) fn of_gauge(account: Option<&str>) -> Option<Vec<Label>> {
    let named = NAMED.read().unwrap_or_else(PoisonError::into_inner);
    labels(named.as_ref(), account)
}

/// The labels of an account's counter, beside its own.
pub(super) fn of_counter(account: Option<&str>) -> Vec<Label> {
    of_gauge(account).unwrap_or_else(|| vec![Label::new("account", OTHER)])
}

fn labels(named: Option<&HashSet<String>>, account: Option<&str>) -> Option<Vec<Label>> {
    let Some(named) = named else { return Some(Vec::new()) };
    let account = account.filter(|account| named.contains(*account))?;
    Some(vec![Label::new("account", account.to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_several_accounts_are_named() {
        let named = HashSet::from(["acct_1".to_owned()]);
        let of = |named: Option<&HashSet<String>>, account: &str| {
            labels(named, Some(account))
                .map(|labels| labels.iter().map(|label| label.value().to_owned()).collect())
        };
        assert_eq!(of(Some(&named), "acct_1"), Some(vec!["acct_1".to_owned()]));
        assert_eq!(of(Some(&named), "acct_2"), None);
        assert_eq!(of(None, "acct_1"), Some(Vec::new()), "the only account needs no label");
    }
}
