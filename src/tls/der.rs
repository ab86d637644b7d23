//! What is done with the DER of an SSL_SESSION (ssl_asn1.c: SSL_SESSION_ASN1) as bytes. Pure and total.

use std::ops::Range;

use crate::store::cleanse;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const TIME: u8 = 0xa0 | 1;
const TIMEOUT: u8 = 0xa0 | 2;
const PEER: u8 = 0xa0 | 3;
/// The field `flags`, which is left out when it is 0.
const FLAGS: u8 = 0xa0 | 13;
/// What obscures the age of a ticket. OpenSSL judges early data by it, and nothing else.
const AGE_ADD: u8 = 0xa0 | 14;
const MAX_EARLY_DATA: u8 = 0xa0 | 15;
/// Of the flags: the extended master secret (ssl_local.h: SSL_SESS_FLAG_EXTMS).
const EXTENDED_MASTER_SECRET: u8 = 1;
/// What each session has, in this order: structure version, protocol, cipher, id, secret.
const FIRST: [u8; 5] = [INTEGER, INTEGER, OCTET_STRING, OCTET_STRING, OCTET_STRING];

/// Where things lie in a session's DER.
#[derive(Default)]
struct Layout {
    /// What stands between the header and the id.
    before_id: Range<usize>,
    id: Range<usize>,
    secret: Range<usize>,
    time: Option<Range<usize>>,
    timeout: Option<Range<usize>>,
    flags: Option<Range<usize>>,
    /// With its tag and its length.
    age_add: Option<Range<usize>>,
    early_data: bool,
    peer: bool,
}

impl Layout {
    fn of(der: &[u8]) -> Option<Layout> {
        let all = element(der, 0).filter(|(tag, content)| *tag == SEQUENCE && content.end == der.len())?.1;
        let mut layout = Layout::default();
        let mut at = all.start;
        for (n, expected) in FIRST.into_iter().enumerate() {
            let (_, content) = element(der, at).filter(|(tag, _)| *tag == expected)?;
            match n {
                3 => (layout.before_id, layout.id) = (all.start..at, content.clone()),
                4 => layout.secret = content.clone(),
                _ => {}
            }
            at = content.end;
        }
        while at < der.len() {
            let (tag, content) = element(der, at)?;
            let number = || {
                let (tag, inside) = element(der, content.start)?;
                (tag == INTEGER && inside.end == content.end).then_some(inside)
            };
            match tag {
                TIME => layout.time = Some(number()?),
                TIMEOUT => layout.timeout = Some(number()?),
                FLAGS => layout.flags = Some(number()?),
                AGE_ADD => layout.age_add = Some(at..content.end),
                MAX_EARLY_DATA => layout.early_data = true,
                PEER => layout.peer = true,
                _ => {}
            }
            at = content.end;
        }
        Some(layout)
    }
}

/// Takes out the session id, and the age of a ticket without early data: the result is what i2d_SSL_SESSION(3) makes of the same
/// session without them. `None`, with the bytes as they were, when they are not the DER of an SSL_SESSION.
pub(super) fn strip(der: &mut Vec<u8>) -> Option<()> {
    let Layout { before_id: before, id, age_add, early_data, .. } = Layout::of(der)?;
    let age_add = age_add.filter(|_| !early_data).unwrap_or(der.len()..der.len());
    // An id has at most 32 bytes, so that its header has two, as that of an empty one.
    let (head, head_len) = header(SEQUENCE, der.len() - before.start - id.len() - age_add.len())?;
    if id.start != before.end + 2 {
        return None;
    }
    // From the front: the new header, what stands before the id, an empty id, the rest. No part grows, so each moves left.
    let mut end = head_len;
    let mut keep = |der: &mut Vec<u8>, part: Range<usize>| {
        let len = part.len();
        der.copy_within(part, end);
        end += len;
        end
    };
    let empty = keep(der, before);
    keep(der, id.start - 2..id.start);
    der[empty..empty + 2].copy_from_slice(&[OCTET_STRING, 0]);
    keep(der, id.end..age_add.start);
    let end = keep(der, age_add.end..der.len());
    der[..head_len].copy_from_slice(&head[..head_len]);
    // What the rest has moved away from is a second copy of its end.
    cleanse(&mut der[end..]);
    der.truncate(end);
    Some(())
}

/// Where the DER of a session, stripped, differs from that of others of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holes {
    pub(super) secret: Range<usize>,
    pub(super) time: Range<usize>,
    pub(super) timeout: Range<usize>,
    /// What stands around them has a certificate of the client.
    pub(super) has_peer: bool,
}

impl Holes {
    /// `None` when a session cannot be made by setters: it may carry early data, whose age has none, or has no times.
    pub(super) fn of(der: &[u8]) -> Option<Holes> {
        let Layout { secret, time, timeout, age_add: None, early_data: false, peer: has_peer, .. } = Layout::of(der)?
        else {
            return None;
        };
        let (time, timeout) = (time?, timeout?);
        let whole = !secret.is_empty() && secret.end <= time.start && time.end <= timeout.start;
        (whole && number(&der[time.clone()]).is_some() && number(&der[timeout.clone()]).is_some()).then_some(Holes {
            secret,
            time,
            timeout,
            has_peer,
        })
    }

    pub(super) fn each(&self) -> impl Iterator<Item = Range<usize>> {
        [self.secret.clone(), self.time.clone(), self.timeout.clone()].into_iter()
    }

    /// What stands around the holes. Nothing, where DER is shorter than that which the holes are of.
    pub(super) fn between<'d>(&self, der: &'d [u8]) -> impl Iterator<Item = &'d [u8]> {
        let Holes { secret, time, timeout, .. } = self;
        let parts = [0..secret.start, secret.end..time.start, time.end..timeout.start, timeout.end..der.len()];
        parts.into_iter().filter_map(|part| der.get(part))
    }
}

/// The value of an INTEGER above 0, in its shortest form: OpenSSL takes 0 for a time that is not set, and other forms for errors.
pub(super) fn number(bytes: &[u8]) -> Option<libc::c_long> {
    let shortest = match bytes {
        [0, second, ..] => *second >= 0x80,
        [first, ..] => (1..0x80).contains(first),
        [] => false,
    };
    let value = bytes.iter().try_fold(0_i64, |value, byte| Some(value.checked_mul(256)? | i64::from(*byte)))?;
    libc::c_long::try_from(value).ok().filter(|_| shortest)
}

/// Whether the session was made with the extended master secret (RFC 7627), which OpenSSL tells of no session in a callback.
pub(super) fn has_extended_master_secret(der: &[u8]) -> bool {
    let flags = Layout::of(der).and_then(|layout| layout.flags);
    flags.and_then(|flags| der.get(flags)?.last()).is_some_and(|low| low & EXTENDED_MASTER_SECRET != 0)
}

/// The tag of the element at `at`, and where its contents lie. Lengths of up to three bytes: a session is below 16 MiB.
fn element(der: &[u8], at: usize) -> Option<(u8, Range<usize>)> {
    let (&[tag, first], rest) = der.get(at..)?.split_first_chunk()?;
    let (more, len) = match first {
        0..=0x7f => (0, usize::from(first)),
        0x81..=0x83 => {
            let more = usize::from(first & 0x7f);
            (more, rest.get(..more)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)))
        }
        _ => return None,
    };
    // Of these bits alone a tag has more bytes (X.690, 8.1.2.4).
    let inside = at + 2 + more;
    (tag & 0x1f != 0x1f && len <= rest.len() - more).then_some((tag, inside..inside + len))
}

/// Tag and length in the shortest form, and how many bytes that is.
fn header(tag: u8, len: usize) -> Option<([u8; 5], usize)> {
    let [a, b, c] = [(len >> 16) as u8, (len >> 8) as u8, len as u8];
    match len {
        0..=0x7f => Some(([tag, c, 0, 0, 0], 2)),
        0x80..=0xff => Some(([tag, 0x81, c, 0, 0], 3)),
        0x100..=0xffff => Some(([tag, 0x82, b, c, 0], 4)),
        0x1_0000..=0xff_ffff => Some(([tag, 0x83, a, b, c], 5)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let (head, len) = header(tag, content.len()).unwrap();
        [&head[..len], content].concat()
    }

    /// A session as far as matters here: with an id of that length, a secret of that length, and these fields behind them.
    fn session(id: usize, secret: usize, fields: &[u8]) -> Vec<u8> {
        let secret: Vec<u8> = (0..secret).map(|n| n as u8).collect();
        let first = [INTEGER, 1, 1, INTEGER, 2, 3, 3, OCTET_STRING, 2, 0xc0, 0x30];
        tagged(
            SEQUENCE,
            &[&first, &tagged(OCTET_STRING, &vec![7; id])[..], &tagged(OCTET_STRING, &secret), fields].concat(),
        )
    }

    /// A field that has a number.
    fn field(tag: u8, number: &[u8]) -> Vec<u8> {
        tagged(tag, &tagged(INTEGER, number))
    }

    /// Time, timeout, and something behind them.
    fn times(time: &[u8], timeout: &[u8]) -> Vec<u8> {
        [field(TIME, time), field(TIMEOUT, timeout), tagged(0xa4, &[OCTET_STRING, 1, 9])].concat()
    }

    #[test]
    fn only_the_id_is_removed_whatever_the_length() {
        for secret in (0..400).chain([65_400, 65_500, 65_519, 65_520, 70_000]) {
            for id in [0, 1, 31, 32] {
                let mut der = session(id, secret, &[]);
                assert_eq!(strip(&mut der), Some(()));
                assert_eq!(der, session(0, secret, &[]), "id of {id}, secret of {secret}");
            }
        }
    }

    #[test]
    fn the_age_of_a_ticket_stays_where_early_data_is_judged_by_it() {
        let (age, early, flags) = (field(AGE_ADD, &[1, 2, 3, 4]), field(MAX_EARLY_DATA, &[64]), field(FLAGS, &[1]));
        let alpn = tagged(0xb0, &[OCTET_STRING, 2, b'h', b'2']);
        let mut without = session(32, 48, &[&flags[..], &age, &alpn].concat());
        assert_eq!(strip(&mut without), Some(()));
        assert_eq!(without, session(0, 48, &[&flags[..], &alpn].concat()));
        let mut with = session(32, 48, &[&flags[..], &age, &early, &alpn].concat());
        assert_eq!(strip(&mut with), Some(()));
        assert_eq!(with, session(0, 48, &[&flags[..], &age, &early, &alpn].concat()));
    }

    #[test]
    fn flags_are_found_where_they_stand() {
        let with = |flags: &[u8]| has_extended_master_secret(&session(0, 3, flags));
        assert!(!with(&[]) && !with(&field(TIME, &[1])) && !with(&field(FLAGS, &[4])));
        assert!(with(&field(FLAGS, &[5])) && with(&[field(TIME, &[2]), field(FLAGS, &[1, 1])].concat()));
        assert!(!with(&[FLAGS, 9]) && !has_extended_master_secret(&[]));
    }

    #[test]
    fn holes_are_the_secret_and_the_times() {
        let der = session(0, 48, &times(&[1, 2, 3, 4], &[5, 6]));
        let holes = Holes::of(&der).unwrap();
        assert_eq!(der[holes.secret.clone()], (0..48).collect::<Vec<u8>>());
        assert_eq!((&der[holes.time.clone()], &der[holes.timeout.clone()]), (&[1, 2, 3, 4][..], &[5, 6][..]));
        let others = holes.between(&der).map(<[u8]>::len).sum::<usize>();
        assert_eq!(others, der.len() - 48 - 6);
        assert_eq!(holes.between(&der[..20]).map(<[u8]>::len).sum::<usize>(), holes.secret.start.min(20));
    }

    #[test]
    fn what_no_setter_makes_has_no_holes() {
        let good = times(&[1], &[5, 6]);
        assert!(Holes::of(&session(0, 48, &good)).is_some());
        let bad = [
            [&good[..], &field(AGE_ADD, &[1])].concat(),
            [&good[..], &field(MAX_EARLY_DATA, &[1])].concat(),
            field(TIME, &[1]),
            field(TIMEOUT, &[1]),
            [field(TIMEOUT, &[1]), field(TIME, &[1])].concat(),
            times(&[0], &[1]),
            times(&[0, 1], &[1]),
            times(&[0x80], &[1]),
            times(&[], &[1]),
            times(&[1; 9], &[1]),
            [tagged(TIME, &[INTEGER, 1, 1, 0]), field(TIMEOUT, &[1])].concat(),
            [&good[..], &[0xbf, 0x20, 0]].concat(),
        ];
        for (n, fields) in bad.iter().enumerate() {
            assert_eq!(Holes::of(&session(0, 48, fields)), None, "case {n}");
        }
        assert_eq!(Holes::of(&session(0, 0, &good)), None);
        assert_eq!([number(&[0, 0x80]), number(&[0x7f; 8])], [Some(128), Some(0x7f7f_7f7f_7f7f_7f7f)]);
    }

    #[test]
    fn bytes_of_another_kind_are_left_alone() {
        let whole = session(32, 90, &times(&[1], &[2]));
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert_eq!((strip(&mut cut), Holes::of(&cut)), (None, None));
            assert_eq!(cut, whole[..len]);
        }
        for at in [0, 1, 3, 4, 6, 7, 10, 11, 14] {
            let mut other = whole.clone();
            other[at] = 0xff;
            let before = other.clone();
            assert_eq!(strip(&mut other), None, "byte {at}");
            assert_eq!(other, before);
        }
    }
}
