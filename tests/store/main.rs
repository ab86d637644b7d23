//! What the store promises to whoever puts and gets: room, time, keys, ids, a store for all.

mod closing;
mod creation;
mod ids;
mod keys;
mod model;
mod opening;
mod room;
mod time;

support::roles!();
