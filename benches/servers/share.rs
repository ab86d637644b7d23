//! How many clients that come back are spared the full handshake: within one instance, after what happens to servers,
//! and in another instance.

use openssl::ssl::SslSession;

use crate::client::{Client, Tls};
use crate::instance::Instance;
use crate::machine::{go_on, Result};

/// So many of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub resumed: usize,
    pub of: usize,
}

impl Share {
    pub fn percent(self) -> f64 {
        100.0 * self.resumed as f64 / self.of.max(1) as f64
    }
}

/// Connections that did not do what they should have, in words.
#[derive(Default)]
pub struct Errors(pub Vec<String>);

impl Errors {
    /// The value, or nothing and one error more.
    pub fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.push(error.to_string())).ok()
    }
}

/// The shares of one instance under one protocol.
#[derive(Default)]
pub struct Shares {
    pub within: Share,
    pub reload: Share,
    pub restart: Share,
    pub killed: Share,
    pub other: Share,
}

/// Makes the sessions of `clients` first visits.
pub fn first_visits(port: u16, tls: Tls, clients: usize, errors: &mut Errors) -> Result<Vec<Option<SslSession>>> {
    let client = Client::new(tls)?;
    let mut sessions = Vec::new();
    for _ in 0..clients {
        go_on()?;
        sessions.push(errors.keep(client.visit(port, None)).and_then(|visit| visit.session));
    }
    Ok(sessions)
}

/// Offers each session once.
pub fn second_visits(port: u16, tls: Tls, sessions: &[Option<SslSession>], errors: &mut Errors) -> Result<Share> {
    let client = Client::new(tls)?;
    let mut share = Share { resumed: 0, of: sessions.len() };
    for session in sessions {
        go_on()?;
        if let Some(visit) = errors.keep(client.visit(port, session.as_ref())) {
            share.resumed += usize::from(visit.resumed);
        }
    }
    Ok(share)
}

/// Lets `clients` clients come back after each of these. The instances are of one kind and share what they can share.
pub fn measure(
    instance: &mut Instance,
    other: &Instance,
    tls: Tls,
    clients: usize,
    errors: &mut Errors,
) -> Result<Shares> {
    let port = instance.site.port;
    let sessions = first_visits(port, tls, clients, errors)?;
    let within = second_visits(port, tls, &sessions, errors)?;

    let sessions = first_visits(port, tls, clients, errors)?;
    instance.reload()?;
    let reload = second_visits(port, tls, &sessions, errors)?;

    let sessions = first_visits(port, tls, clients, errors)?;
    instance.kill_workers()?;
    let killed = second_visits(port, tls, &sessions, errors)?;

    let sessions = first_visits(port, tls, clients, errors)?;
    instance.stop()?;
    instance.run()?;
    let restart = second_visits(port, tls, &sessions, errors)?;

    let sessions = first_visits(port, tls, clients, errors)?;
    let other = second_visits(other.site.port, tls, &sessions, errors)?;
    Ok(Shares { within, reload, restart, killed, other })
}
