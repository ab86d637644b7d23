//! The Python package, as far as Python alone is needed; `make test-servers` has pyOpenSSL, gunicorn, and what pip installs.

use std::process::Command;
use std::time::Duration;
use support::{root, run, stage};

#[test]
fn python_servers_share_their_sessions_through_restarts_and_what_cannot_work_is_refused() {
    let mut test = Command::new(root().join("integrations/python/test"));
    test.arg("--short").env("SESSCACHE_STAGE", stage());
    run(&mut test, Duration::from_secs(240), "").expect_success("the Python package fails");
}
