//! The decoders that touch nothing but their arguments: records, ids, options, the server_name extension, the DER of sessions.

use std::cell::RefCell;
use std::time::Duration;

use super::{scratch, Input};
use crate::options::{Options, CAPACITY_LIMITS, MAX_TTL, READERS_LIMITS, TABLE};
use crate::store::directory::Directory;
use crate::store::id::{expiry_of, DecodedId, Key, Mask, FOREIGN_MAX, ID, KEY_MAX, LANES, RANDOM};
use crate::store::keys::Keys;
use crate::store::record::{self, Header, RecordKind, HEADER, OVERHEAD, PLAIN_MAX};
use crate::store::seal::{AssociatedData, Sealer};

/// Any bytes are a record or are not; none that was not sealed here opens; one that was does, and only in its place.
pub(super) fn record(data: &[u8]) {
    thread_local!(static SEALER: RefCell<Sealer> = RefCell::new(sealer()));
    SEALER.with_borrow_mut(|sealer| {
        let mut input = Input(data);
        let associated = AssociatedData { key: input.up_to(8), namespace: input.u64() };
        let mut out = Vec::new();
        let bytes = input.0;
        let header = Header::read(bytes);
        assert_eq!(header.is_some(), bytes.len() >= HEADER && bytes[0] == 2, "a header is read, or not, for no reason");
        let Some(found) = record::parse(bytes) else {
            assert!(header.is_none() || bytes.len() < OVERHEAD || bytes.len() > OVERHEAD + PLAIN_MAX);
            return;
        };
        let mut again = [0; HEADER];
        found.header.write(&mut again);
        assert_eq!(again, bytes[..HEADER], "a header is written other than it was read");
        assert_eq!([found.header_bytes, found.nonce, found.sealed, found.tag].concat(), bytes);
        assert!(!sealer.open(&found, associated, &mut out), "a forged record opens");

        let plain = found.sealed;
        let mut sealed = Vec::new();
        sealer.seal(&mut found.header.clone(), associated, plain, &mut sealed).expect("sealing");
        assert_eq!(sealed.len(), OVERHEAD + plain.len());
        let mine = record::parse(&sealed).expect("what was sealed is a record");
        assert!(sealer.open(&mine, associated, &mut out) && out == plain, "what was sealed does not open");
        assert!(
            !sealer.open(&mine, AssociatedData { namespace: !associated.namespace, ..associated }, &mut out),
            "a record opens in another namespace"
        );
        // One bit somewhere, chosen by the input.
        let bit = usize::from(u16::from_be_bytes([found.tag[0], found.tag[1]])) % (sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        if let Some(bad) = record::parse(&sealed) {
            assert!(!sealer.open(&bad, associated, &mut out), "a record opens with bit {bit} flipped");
        }
    });
}

fn sealer() -> Sealer {
    let scratch = scratch();
    let (dir, found) = Directory::prepare(scratch.path(), &Options::default()).expect("a directory");
    dir.enter_found(found).and_then(|open| Keys::create(&open)).expect("a key");
    Sealer::new(Keys::load(&dir).expect("the key"))
}

/// Any id decodes to a plausible key or to none, and a key leads back to its id; any key bytes are a key or are not.
pub(super) fn id(data: &[u8]) {
    let mut input = Input(data);
    let (secret, site) = (input.bytes(), input.u32());
    let mask = Mask::new(&secret, site);
    // Any moment from 1970 to the last one that a key can have.
    let now = input.u64() >> 13;
    let latest = now + MAX_TTL.as_micros() as u64;
    let after = input.u64();
    let random: [u8; RANDOM] = input.bytes();
    let lane = input.byte();

    let expiry = now + after % (latest - now);
    let own = mask.issue(lane, expiry, &random);
    match mask.decode(&own, now, latest) {
        DecodedId::Ours(key) => {
            assert!(expiry > now && key.expiry() == Some(expiry) && key.is_head());
            assert_eq!(usize::from(key.bytes()[7]) % LANES, usize::from(lane) % LANES);
            assert_eq!(mask.id_of(&key).as_deref(), Some(&own[..]), "a key does not lead back to its id");
            assert_eq!(key.foreign_id(), None);
            assert_eq!(key.continuation(1).expiry(), Some(expiry));
        }
        DecodedId::Expired => assert_eq!(expiry, now, "an id of our own counts as expired before its time"),
        DecodedId::Foreign => panic!("an id of our own is foreign"),
    }
    assert!(
        matches!(Mask::new(&secret, !site).decode(&own, now, latest), DecodedId::Foreign),
        "another site's id is ours"
    );
    let mut forged = own;
    forged[usize::from(lane) % ID] ^= 1 << (after % 8);
    assert!(matches!(mask.decode(&forged, now, latest), DecodedId::Foreign), "a forged id is ours");

    let any = input.up_to(usize::from(input.0.first().copied().unwrap_or(0)) + 1);
    if let DecodedId::Ours(key) = mask.decode(any, now, latest) {
        let expiry = key.expiry().expect("a time");
        assert!(any.len() == ID && now < expiry && expiry <= latest, "an implausible id reaches the store");
        assert_eq!(mask.id_of(&key).as_deref(), Some(any));
    }
    let namespace = u32::from_le_bytes(random[..4].try_into().expect("4 bytes"));
    for kind in [RecordKind::Session, RecordKind::Opaque] {
        let key = Key::outside(kind, namespace, any);
        assert_eq!(key.is_some(), !any.is_empty() && any.len() <= FOREIGN_MAX);
        let Some(key) = key else { continue };
        assert!(key.is_head() && key.foreign_id() == Some(any), "an id does not come back from its key");
        assert!(!key.continuation(255).is_head());
    }
    let _ = expiry_of(any);
    if let Some(key) = Key::read(any).filter(|key| key.is_head()) {
        let continued = key.continuation(any[0]);
        assert!(any.len() < KEY_MAX && !continued.is_head() && continued.expiry() == key.expiry());
    }
}

/// Any text is a set of options within their limits, or is refused with a sentence.
pub(super) fn options(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let options = match Options::parse(text) {
        Ok(options) => options,
        Err(error) => {
            assert!(!error.detail.is_empty(), "a refusal without a word");
            return;
        }
    };
    let within = |limits: (u64, u64), value: u64| (limits.0..=limits.1).contains(&value);
    assert!(options.capacity.is_none_or(|n| within(CAPACITY_LIMITS, n)));
    assert!(options.readers.is_none_or(|n| (READERS_LIMITS.0..=READERS_LIMITS.1).contains(&n)));
    assert!(options.ttl.is_none_or(|ttl| (Duration::from_secs(1)..=MAX_TTL).contains(&ttl)));
    assert!(options.deadline <= Duration::from_secs(10) && options.decoded <= 1 << 30);
    assert!(options.mode & !0o660 == 0 && options.mode & 0o600 == 0o600, "others may read the sessions");
    assert!(options.namespace.len() <= 255);
    assert!(options.key.as_ref().is_none_or(|key| key.is_absolute()));
    // White space between options means nothing, and no option may be given twice.
    assert_eq!(Options::parse(&format!("\t {text}\n ")).as_ref().ok(), Some(&options));
    if let Some(row) = TABLE.iter().find(|row| text.trim_start().starts_with(&format!("{}=", row.name))) {
        assert!(Options::parse(&format!("{text} {text}")).is_err(), "'{}' is accepted twice", row.name);
    }
}

/// Any extension has a host name inside, where RFC 6066 says it is, or has none.
pub(super) fn host_name(data: &[u8]) {
    let found = crate::tls::policy::host_name(data);
    // The same said the long way: type at 2, length at 3 and 4, name from 5.
    let len = data.get(3..5).map(|len| usize::from(len[0]) << 8 | usize::from(len[1]));
    let expected = len.filter(|_| data[2] == 0).and_then(|len| data.get(5..5 + len));
    assert_eq!(found, expected);
}

/// Any bytes are the DER of a session or are not; what is made from one of its kind is what decoding makes.
pub(super) fn session(data: &[u8]) {
    crate::tls::check_promises(data);
    // SAFETY: no preconditions. What OpenSSL says of bytes that are no session is not looked at.
    unsafe { openssl_sys::ERR_clear_error() };
}
