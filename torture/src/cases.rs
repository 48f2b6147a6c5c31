//! What is done to victims. Each case is a function of how much of it is wanted, and bounded in
//! count and time.

pub mod cuts;
pub mod damage;
pub mod disk_full;
pub mod kills;
mod no_audit;
pub mod races;
pub mod sends;
