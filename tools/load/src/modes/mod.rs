//! One file for each thing that can be done.

pub mod attack;
pub mod drain;
pub mod expiry;
pub mod fanout;
pub mod hostile;
pub mod idle;
pub mod offline;
pub mod pairs;
