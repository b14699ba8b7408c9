//! Promise: a ledger comes over to another database with every row as it was, however often that is interrupted, and at no time do two
//! ledgers serve; what is pruned of it makes no second card; and what was altered or lost in it is found.

mod filled;
mod given_up;
mod kept;
mod many_rows;
mod moved;
use crate::support;
