//! Interoperation with the reference implementation, both ways: what one writes the other reads, answers and
//! continues identically.

mod cli;
mod embed;
mod history;
mod index;
mod oracle;
mod reads;
mod reference;
mod writes;
