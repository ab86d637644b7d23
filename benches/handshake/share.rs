//! How much of a server's handshake passes in the callbacks: a clock around each.

use std::io;

use crate::context::{Context, People, Setting};
use crate::lanes::{self, clocked, Caches, Lane};
use crate::memory::{first_offer, median, shake, Case};
use crate::support::rows::{Book, Row};

/// Measures the lanes that have callbacks with a cost, one after the other: each is compared with itself. Making ids for
/// new TLS 1.3 tickets is outside, as OpenSSL makes them itself without a cache.
pub fn measure(
    book: &mut Book,
    case: Case,
    setting: Setting,
    people: &People,
    caches: &Caches,
    handshakes: usize,
) -> io::Result<()> {
    for lane in [Lane::Codec, Lane::Sesscache, Lane::Unseen] {
        lanes::follow(true);
        let (server, client) = (lane.server(setting, people, caches), Context::client(setting, people));
        let mut offer = first_offer(lane, case, &server, &client);
        lanes::follow(case == Case::Chain);
        clocked::wrap(&server);
        let (mut new, mut get, mut all, mut share) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for n in 0..handshakes + 5 {
            clocked::spent();
            let shaken = shake(&server, &client, offer.as_ref());
            assert_eq!(shaken.resumed, case != Case::Full, "{}: a handshake is not what it should be", lane.name());
            if case == Case::Chain {
                offer = Some(shaken.next);
            }
            if n < 5 {
                continue;
            }
            let spent = clocked::spent();
            new.push(spent.0 as f64 / 1e3);
            get.push(spent.1 as f64 / 1e3);
            all.push(shaken.steps as f64 / 1e3);
            share.push((spent.0 + spent.1) as f64 / shaken.steps as f64 * 100.0);
        }
        let row = Row::new("handshake", "share of the callbacks", "%")
            .param("handshake", case.name(setting))
            .param("version", setting.version())
            .param("key", setting.server.name())
            .param("client", setting.client_name())
            .param("cache", lane.name())
            .param("transport", "memory")
            .figure(median(&mut share), None)
            .more("new, µs", median(&mut new))
            .more("get, µs", median(&mut get))
            .more("handshake, µs", median(&mut all));
        book.add(row)?;
        lanes::forget();
    }
    Ok(())
}
