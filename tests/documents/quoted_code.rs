//! Code that the documentation quotes from the integrations is code of the integrations. A quotation that differs would
//! teach what no test has run.

use std::fs;
use std::path::Path;

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All C sources below a directory, and those that patches make.
fn sources(directory: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
            all += &read(&path);
        } else if path.extension().is_some_and(|extension| extension == "patch") {
            // As the file is with the patch: what is added, and what stands around it.
            let patched = |line: &str| line.strip_prefix(['+', ' ']).map(|line| format!("{line}\n"));
            all.extend(read(&path).lines().filter_map(patched));
        }
    }
    all
}

#[test]
fn what_the_page_for_authors_quotes_stands_in_the_integrations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = read(&root.join("docs/adding-to-your-server.md"));
    let code = sources(&root.join("integrations"));
    let blocks: Vec<&str> =
        page.split("```c\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(!blocks.is_empty(), "the page quotes nothing");
    for block in blocks {
        assert!(code.contains(block), "docs/adding-to-your-server.md quotes what is in no integration:\n{block}");
    }
}
