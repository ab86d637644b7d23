//! The program `sesscache` on stores of all kinds.

mod changes;
mod connecting;
mod damage;
mod health;
#[cfg(feature = "cli")]
mod manual;
mod reads;
mod refused;
mod streams;
mod unit;

support::roles!();
