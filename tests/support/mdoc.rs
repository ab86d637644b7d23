//! Reads manual pages in mdoc, as far as the tests need it.

use std::fs;
use std::path::{Path, PathBuf};

/// A page: its lines by section.
pub struct Page {
    pub path: PathBuf,
    sections: Vec<(String, Vec<String>)>,
}

impl Page {
    pub fn read(path: &Path) -> Page {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut sections: Vec<(String, Vec<String>)> = Vec::new();
        for line in text.lines() {
            if let Some(title) = line.strip_prefix(".Sh ") {
                sections.push((title.to_owned(), Vec::new()));
            } else if let Some((_, lines)) = sections.last_mut() {
                lines.push(line.to_owned());
            }
        }
        Page { path: path.to_owned(), sections }
    }

    /// The lines of a section; none when the page lacks it.
    pub fn section(&self, title: &str) -> &[String] {
        self.sections.iter().find(|(found, _)| found == title).map_or(&[], |(_, lines)| lines)
    }

    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("a file name in UTF-8")
    }

    /// What the page describes: the names in NAME.
    pub fn names(&self) -> Vec<String> {
        let lines = self.section("NAME").iter().filter_map(|line| line.strip_prefix(".Nm "));
        lines.map(|line| line.trim_end_matches(" ,").to_owned()).collect()
    }

    /// The prototypes and types of SYNOPSIS, each as one line of C.
    pub fn declarations(&self) -> Vec<String> {
        let (mut found, mut start, mut arguments) = (Vec::new(), String::new(), Vec::new());
        for line in self.section("SYNOPSIS") {
            let (what, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
            let rest = rest.trim().trim_matches('"').to_owned();
            match what {
                ".Ft" => start = rest,
                ".Fo" => start = format!("{start} {rest}"),
                ".Fa" => arguments.push(rest),
                ".Fc" => found.push(format!("{start}({});", std::mem::take(&mut arguments).join(", "))),
                ".Vt" => found.push(rest),
                _ => {}
            }
        }
        found
    }

    /// The literal displays of EXAMPLES, with mdoc's escapes undone.
    pub fn examples(&self) -> Vec<String> {
        let (mut found, mut inside) = (Vec::new(), None::<String>);
        for line in self.section("EXAMPLES") {
            if line.starts_with(".Bd -literal") {
                inside = Some(String::new());
            } else if line == ".Ed" {
                found.extend(inside.take());
            } else if let Some(code) = &mut inside {
                *code += &line.replace("\\e", "\\");
                code.push('\n');
            }
        }
        found
    }

    /// The pages it refers to, as (name, section).
    pub fn references(&self) -> Vec<(String, String)> {
        let lines = self.sections.iter().flat_map(|(_, lines)| lines);
        let words = lines.filter(|line| line.contains("Xr ")).map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .flat_map(|words| {
                let at = words.iter().position(|word| word.ends_with("Xr")).expect("Xr");
                words.get(at + 1..at + 3).map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
            })
            .collect()
    }
}

/// A sentence as mdoc: one line per sentence, none of which can be taken for a macro.
pub fn sentences(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace(". ", ".\n");
    let lines = text.lines().map(|line| match line.chars().next() {
        Some('.' | '\'') => format!("\\&{line}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
