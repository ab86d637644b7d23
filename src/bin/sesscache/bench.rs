use crate::arguments::Bench;
use crate::failure::{Failure, Outcome};

pub fn run(_arguments: &Bench, _json: bool) -> Result<Outcome, Failure> {
    Ok(Outcome::Fine)
}
