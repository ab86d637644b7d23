//! Who may use whom: no module reaches up, and no two reach each other. Read off the `use` lines and paths of `src/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The modules of the crate, each of which uses only those before it. Tables and messages first, C last.
const LAYERS: &[&str] = &["sys", "status", "options", "stats", "log", "store", "tls", "cache", "inspect", "capi"];

type Graph = BTreeMap<String, BTreeSet<String>>;

fn sources(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file without its comments and its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first names of all paths that begin with `root`, also of those in braces.
fn names_behind(code: &str, root: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(root) {
        // `super::` within `super::super::` is somebody else's.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == ':' || c == '_') {
            continue;
        }
        let rest = &code[at + root.len()..];
        if rest.starts_with("super::") {
            continue;
        }
        match rest.strip_prefix('{') {
            None => drop(names.insert(name(rest))),
            Some(list) => {
                let (mut depth, mut start) = (0, true);
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if depth == 0 && start && !c.is_whitespace() => {
                            names.insert(name(&list[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The path of a file below `below`, as module names.
fn module(path: &Path, below: &Path) -> Vec<String> {
    let relative = path.strip_prefix(below).unwrap().with_extension("");
    relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_module_uses_only_those_below_it() {
    let mut uses = 0;
    for path in sources(&src()) {
        let module = module(&path, &src());
        let Some(layer) = LAYERS.iter().position(|layer| *layer == module[0]) else { continue };
        for used in names_behind(&code(&path), "crate::") {
            let Some(below) = LAYERS.iter().position(|layer| *layer == used) else { continue };
            assert!(below <= layer, "{}: {} uses {used}, which is above it", path.display(), module[0]);
            uses += usize::from(below < layer);
        }
    }
    assert!(uses > 50, "only {uses} uses were found: this test looks in the wrong place");
}

/// The modules of `store`, of `tls` and of `sys`, with those of the same parent that each uses.
fn graph(parent: &str) -> Graph {
    let below = src().join(parent);
    let mut graph = Graph::new();
    for path in sources(&below) {
        let module = module(&path, &below);
        let code = code(&path);
        let mut used = names_behind(&code, &format!("crate::{parent}::"));
        used.extend(names_behind(&code, &"super::".repeat(module.len())));
        graph.entry(module[0].clone()).or_default().extend(used);
    }
    let modules: BTreeSet<String> = graph.keys().cloned().collect();
    for (module, used) in &mut graph {
        used.retain(|used| modules.contains(used) && used != module);
    }
    graph
}

/// A way from `at` back to `to`, if there is one.
fn way_back(graph: &Graph, at: &str, to: &str, seen: &mut BTreeSet<String>) -> Option<Vec<String>> {
    for next in &graph[at] {
        if next == to {
            return Some(vec![next.clone()]);
        }
        if seen.insert(next.clone()) {
            if let Some(mut way) = way_back(graph, next, to, seen) {
                way.push(next.clone());
                return Some(way);
            }
        }
    }
    None
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    for (parent, least) in [("store", 40), ("tls", 15), ("sys", 5)] {
        let graph = graph(parent);
        for module in graph.keys() {
            let way = way_back(&graph, module, module, &mut BTreeSet::new());
            assert_eq!(way, None, "{parent}::{module} uses itself by way of others (read from the right)");
        }
        let uses: usize = graph.values().map(BTreeSet::len).sum();
        assert!(uses >= least, "only {uses} uses were found in {parent}: this test looks in the wrong place");
    }
}

#[test]
fn callbacks_have_no_unsafe_code_and_no_note_argues_by_contract() {
    assert!(!code(&src().join("tls/hooks.rs")).contains("unsafe"), "src/tls/hooks.rs has unsafe code");
    for path in sources(&src()) {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.display();
        assert!(!text.to_lowercase().contains("safety: by contract"), "{shown}: a SAFETY note names no requirement");
        assert!(text.lines().count() <= 450, "{shown} has more than 450 lines");
    }
}

#[test]
fn no_type_has_the_name_of_another() {
    let mut names = BTreeMap::new();
    for path in sources(&src()) {
        for line in code(&path).lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub").map_or(line, |rest| rest.trim_start_matches(|c| c != ' ').trim_start());
            let Some(rest) = line.strip_prefix("struct ").or_else(|| line.strip_prefix("enum ")) else { continue };
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            // What a macro names, and C's types, are no names of this crate.
            if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
                continue;
            }
            if let Some(other) = names.insert(name.clone(), path.clone()) {
                panic!("{name} is in {} and in {}", other.display(), path.display());
            }
        }
    }
    assert!(names.len() > 100, "only {} types were found: this test looks in the wrong place", names.len());
}
