//! Lists among a request's parameters, as `spending_controls[spending_limits][0]`: their indices have no gap.

use std::collections::{BTreeMap, BTreeSet};

use super::params;

/// Numbers every list from 0 again: a row that leaves the first limit's cells empty has one limit, not a second one.
pub(super) fn close_gaps(pairs: &mut [(String, String)]) {
    if pairs.iter().all(|(path, _)| indexed(path).all(|(_, index)| index == 0)) {
        return;
    }
    let lists = lists(pairs.iter().map(|(path, _)| path.as_str()));
    if lists.values().all(is_gapless) {
        return;
    }
    let lists: BTreeMap<String, BTreeSet<u16>> =
        lists.into_iter().map(|(list, indices)| (list.to_owned(), indices)).collect();
    for (path, _) in pairs {
        let mut closed = path.clone();
        // From the right, so that what stands before keeps its place.
        for (list, index) in indexed(path).collect::<Vec<_>>().into_iter().rev() {
            let rank = lists[list].iter().take_while(|other| **other < index).count();
            let end = list.len() + 2 + index.to_string().len();
            closed.replace_range(list.len()..end, &format!("[{rank}]"));
        }
        *path = closed;
    }
}

/// The lists that paths go through, each with the indices that are there.
fn lists<'p>(paths: impl Iterator<Item = &'p str>) -> BTreeMap<&'p str, BTreeSet<u16>> {
    let mut lists: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
    for (list, index) in paths.flat_map(indexed) {
        lists.entry(list).or_default().insert(index);
    }
    lists
}

fn is_gapless(indices: &BTreeSet<u16>) -> bool {
    indices.iter().zip(0..).all(|(index, rank)| *index == rank)
}

/// Which of these paths leave a gap in a list when they are empty, nothing else being so; all of them if there is one
/// already.
pub(crate) fn may_leave_gaps<'p>(paths: impl Iterator<Item = &'p str> + Clone) -> impl Iterator<Item = bool> {
    let lists = lists(paths.clone());
    let gaps = !lists.values().all(is_gapless);
    let long = lists.values().any(|indices| indices.len() > 1);
    paths.map(move |path| gaps || (long && indexed(path).next().is_some()))
}

/// Each list that a path goes through, with the index it takes there.
fn indexed(path: &str) -> impl Iterator<Item = (&str, u16)> {
    let metadata = params::metadata_key(path).is_some();
    path.match_indices('[').filter(move |_| !metadata).filter_map(move |(at, _)| {
        let name = path[at + 1..].split(']').next()?;
        let index = params::is_index(name).then(|| name.parse().ok()).flatten()?;
        Some((&path[..at], index))
    })
}
