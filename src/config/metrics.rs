//! `[metrics]`

use serde::{Deserialize, Serialize};

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Most accounts that metrics name, where one process calls for several.
    pub accounts_max: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { accounts_max: 50 }
    }
}
