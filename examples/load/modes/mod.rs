//! One file for each thing that can be done.

pub mod drain;
pub mod fanout;
pub mod idle;
pub mod offline;
pub mod pairs;
