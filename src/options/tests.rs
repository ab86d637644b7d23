use super::*;

fn refused(text: &str) -> String {
    Options::parse(text).expect_err(text).to_string()
}

#[test]
fn a_full_line_of_configuration_is_understood() {
    let o = Options::parse(" capacity=256MiB  ttl=2h\tsni=off single_use=always tickets=host remove=never deadline=20ms decoded=0 guard=on key='/a b/it\\'s' readers=64 local=1MiB namespace='' mode=0660 owner=daemon group=tls ").unwrap();
    assert_eq!(o.capacity, Some(256 << 20));
    assert_eq!(o.ttl, Some(Duration::from_secs(7200)));
    assert_eq!((o.sni, o.single_use, o.remove), (Sni::Off, SingleUse::Always, Remove::Never));
    assert_eq!(o.tickets, Tickets::Host);
    assert_eq!(o.key, Some(PathBuf::from("/a b/it's")));
    assert_eq!((o.mode, o.guard, o.readers, o.decoded), (0o660, Some(true), Some(64), 0));
    assert_eq!((o.local, Options::parse("local=off").unwrap().local), (Some(1 << 20), Some(0)));
    assert_eq!(Options::parse("").unwrap(), Options::default());
}

#[test]
fn every_refusal_names_the_option_and_what_it_takes() {
    for bad in ["capacity=1", "capacity=1KiB", "capacity=65GiB", "capacity=99999999999999999999MiB", "capacity=MiB"] {
        assert!(refused(bad).contains("1MiB to 64GiB"), "{bad}");
    }
    for bad in ["ttl=0s", "ttl=500ms", "ttl=-1s", "ttl=367d", "ttl=5"] {
        assert!(refused(bad).contains("such as 90s"), "{bad}");
    }
    for bad in
        ["mode=0644", "mode=0666", "mode=rw", "key=relative", "readers=1", "deadline=11s", "sni=yes", "local=1KiB"]
    {
        assert!(refused(bad).contains("takes"), "{bad}");
    }
    assert!(refused("capcity=1MiB").contains("capacity"), "a typing error is answered with the names");
    assert!(refused("ttl").contains("no value"));
    assert!(refused("ttl = 5s").contains("no space"));
    assert!(refused("ttl=5s ttl=6s").contains("twice"));
    assert!(refused("key='/x").contains("closing quote"));
    assert!(refused("key='/x'y").contains("space after"));
}

#[test]
fn a_default_yields_to_what_is_given_before_or_after_it() {
    let owner = |text: &str| Options::parse(text).unwrap().owner.unwrap();
    assert_eq!(owner("owner?=www-data"), "www-data");
    assert_eq!(owner("owner=daemon owner?=www-data"), "daemon");
    assert_eq!(owner("owner?=www-data owner=daemon"), "daemon");
    assert_eq!(Options::parse("namespace='' namespace?=ssl").unwrap().namespace, "", "an empty value is given, too");
    assert!(refused("owner?=a owner?=b").contains("twice"));
    assert!(
        refused("ttl=5s ttl?=banana").contains("such as 90s"),
        "a default that does not count is checked all the same"
    );
    assert!(refused("colour?=red").contains("unknown option 'colour'"));
    assert!(refused("owner=a,ttl?=2h").contains("spaces separate"));
}

#[test]
fn only_spaces_separate_options() {
    for joined in [
        "capacity=64MiB,ttl=2h",
        "capacity=64MiB;ttl=2h",
        "capacity=64MiB, ttl=2h",
        "capacity=64MiB,ttl=2h,sni=off",
        "sni=off capacity=64MiB,ttl=2h",
    ] {
        let said = refused(joined);
        assert!(said.contains("spaces separate options: capacity=64MiB ttl=2h"), "{joined}: {said}");
    }
    for taken_for_text in ["namespace=a,ttl=2h", "key=/x,ttl=2h", "owner=www-data,ttl=2h"] {
        assert!(refused(taken_for_text).contains("spaces separate"), "{taken_for_text}");
    }
    assert!(!refused("capacity=1,2MiB").contains("spaces separate"), "what follows is no option");
    assert!(!refused("capacity=64MiB,").contains("spaces separate"), "nothing follows");
    assert_eq!(Options::parse("namespace=a,b=c").unwrap().namespace, "a,b=c");
    assert_eq!(Options::parse("namespace='a,ttl=2h'").unwrap().namespace, "a,ttl=2h");
}
