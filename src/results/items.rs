//! Two cells' items side by side: the same questions under two recipes, or before and after a change.
use super::{Item, MetricInfo};
use crate::stats::{Pairs, Share};
use std::collections::BTreeSet;

/// Parts are clusters where there are as many: fewer are no sample of parts (MMLU's 57 subjects are; five positions are not).
const PARTS: usize = 20;

/// A cell's items, in an order that depends on nothing but their content.
pub struct Items(Vec<Item>);

impl Items {
    /// As the store gives them; `None` is none.
    pub fn new(items: Option<Vec<Item>>) -> Self {
        let mut items = items.unwrap_or_default();
        items.sort_by_cached_key(|i| (i.item.clone(), serde_json::to_string(&i.shares).unwrap_or_default()));
        Self(items)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Item> {
        self.0.iter()
    }

    /// Shares of a metric over all items or a part's, and those items.
    pub fn of(&self, metric: &str, part: Option<&str>) -> Option<(Vec<&Item>, Vec<Share>)> {
        let mine = self.0.iter().filter(|i| part.is_none() || i.part.as_deref() == part);
        let all: Vec<(&Item, Share)> = mine.filter_map(|i| Some((i, *i.shares.get(metric)?))).collect();
        (!all.is_empty()).then(|| all.into_iter().unzip())
    }

    /// Pairs a metric of this run with the same of `full`, over all items in their clusters, or over a part's. `None`: they did
    /// not see the same items.
    pub fn pair(&self, full: &Items, metric: &MetricInfo, part: Option<&str>) -> Option<Pairs> {
        let ((a_items, a), (b_items, b)) = (full.of(&metric.name, part)?, self.of(&metric.name, part)?);
        let same =
            a_items.len() == b_items.len() && a_items.iter().zip(&b_items).all(|(a, b)| a.item == b.item);
        let pairs = if same { Pairs::new(&a, &b, metric.scale)? } else { return None };
        let names = if part.is_none() { clusters(&b_items) } else { Vec::new() };
        Some(if names.is_empty() { pairs } else { pairs.clustered(&names) })
    }
}

/// The cluster of each item: what its task names, else its part where parts are many. Empty: each stands for itself.
fn clusters(items: &[&Item]) -> Vec<String> {
    if let Some(names) = items.iter().map(|i| i.cluster.clone()).collect::<Option<Vec<_>>>() {
        return names;
    }
    let parts = items.iter().map(|i| i.part.clone()).collect::<Option<Vec<_>>>().unwrap_or_default();
    let distinct = parts.iter().collect::<BTreeSet<_>>().len();
    if distinct >= PARTS { parts } else { Vec::new() }
}
