//! What goes wrong, from a wrong option to a machine that is suspended; docs/faults.md says what a server notices of each.

mod attacker;
mod bad_input;
mod crash_loop;
mod damaged_file;
mod damaged_store;
mod damaged_while_open;
mod directory;
mod filtered_calls;
mod frozen;
mod hostile_owner;
mod killed_workers;
mod memory_limit;
mod no_room;
mod over_quota;
mod shared_directory;
mod shared_lock;
mod stopped_in_lmdb;
mod stopped_process;
mod suspended_machine;
mod time_namespaces;
mod whole_files;

support::roles!();
