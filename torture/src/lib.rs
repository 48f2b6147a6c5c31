//! Convoke under torture: agents are killed, their disks filled, their files damaged, their streams
//! cut, while clients write down what they are told; then an independent checker looks whether all
//! of it was true.
//!
//! | module | story |
//! |---|---|
//! | [`site`] | where a victim lives, is started and killed |
//! | [`proxy`] | the network between it and its clients |
//! | [`ask`], [`history`] | a client, and what it was told |
//! | [`store`] | the store as plain SQL shows it |
//! | [`checker`] | whether all of that fits |
//! | [`cases`], [`args`] | what is done to victims, and how often |

pub mod args;
pub mod ask;
pub mod cases;
pub mod checker;
pub mod evidence;
pub mod history;
pub mod proxy;
pub mod random;
pub mod report;
pub mod site;
pub mod store;
