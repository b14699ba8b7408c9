//! `[approval]`: whether somebody else looks at a batch before it is issued.

use serde::{Deserialize, Serialize};

/// `[approval]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalConfig {
    /// Whether `serve` issues an upload only once the holder of another token has approved it.
    pub required: bool,
    /// How long a batch may wait for its approval, in hours.
    pub hours: f64,
    /// Whether jobs that are sent one by one are issued all the same, without one.
    pub jobs: bool,
}

impl Default for ApprovalConfig {
    fn default() -> Self {
        Self { required: false, hours: 8.0, jobs: false }
    }
}
