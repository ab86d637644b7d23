//! What is written down is so: header, manual pages, README.md, docs/, packages, examples, what gets installed.

mod architecture;
mod commands;
mod examples;
mod header;
mod install;
mod manual_pages;
mod operating_tables;
mod packaging;
mod quoted_code;
mod symbols;
mod system_calls;
mod testing;
