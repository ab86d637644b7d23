//! Real TLS clients come back to a server of many processes, and it resumes their sessions.
//!
//! Every client runs over TLS 1.2 and TLS 1.3 against servers of several kinds (`scene.rs`), several connections in a
//! row. What counts is the server's word on whether a session was resumed; where the client has a word, too, they have
//! to agree. `roster.rs` lists the clients and, for those that cannot resume, the reason.
//!
//! Clients whose tools are large run with `--include-ignored` only. With UPDATE=1 in the environment a complete run
//! writes docs/clients.md, which is what `make clients` does.

mod kit;
mod programs;
mod roster;
mod scene;
mod table;
mod tools;
mod visit;

use kit::Kit;
use libtest_mimic::{Arguments, Failed, Trial};
use roster::Client;
use scene::Scene;
use std::sync::Arc;
use support::Tls;
use table::Table;

fn main() {
    let arguments = Arguments::from_args();
    let kit = Arc::new(Kit::new());
    let table = Arc::new(Table::default());
    let trials = roster::CLIENTS.iter().flat_map(|client| client.versions.iter().map(move |tls| (client, *tls)));
    let trials = trials.map(|(client, tls)| {
        let (kit, table) = (kit.clone(), table.clone());
        let name =
            format!("{}_resumes_across_processes_{}", client.id, if tls == Tls::V12 { "tls12" } else { "tls13" });
        Trial::test(name, move || check(client, tls, &kit, &table)).with_ignored_flag(client.large)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(kit);
    if std::env::var_os("UPDATE").is_some() && !arguments.list {
        table.write();
    }
    conclusion.exit();
}

/// One client and version of TLS, against every server that suits it.
fn check(client: &Client, tls: Tls, kit: &Kit, table: &Table) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    for scene in Scene::ALL.into_iter().filter(|scene| client.suits(*scene, tls)) {
        let share = scene.play(client, tls, kit);
        table.record(client, tls, scene, share);
        let expected = if client.ought_to_resume(scene, tls) { share.of } else { 0 };
        if share.resumed != expected || share.of == 0 {
            wrong.push(format!("{scene:?}: {} of {} resumed, not {expected}", share.resumed, share.of));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("{}, {tls:?}: {}", client.name, wrong.join("; ")).into()),
    }
}
