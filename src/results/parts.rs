//! The parts of a task, each with its own metrics: on disk a table by the part's name, in the task's order.
//!
//! The order is the task's because it can be what the parts are about: positions of a needle, depths, lengths.
use super::Value;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};

/// By part, the metrics by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(pub Vec<(String, BTreeMap<String, Value>)>);

impl Parts {
    /// The task has none, or what was measured is not of its items.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A part's metrics.
    pub fn get(&self, part: &str) -> Option<&BTreeMap<String, Value>> {
        self.0.iter().find(|(name, _)| name == part).map(|(_, metrics)| metrics)
    }
}

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(name, metrics)| (name, metrics)))
    }
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Parts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of parts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = map.next_entry()? {
                    parts.push(part);
                }
                Ok(Parts(parts))
            }
        }
        from.deserialize_map(InOrder)
    }
}
