//! `doctor --pid`: whether a running process has the configuration module of OpenSSL, and what that has attached.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use sesscache::inspect::{Finding, Verdict};

use crate::failure::Failure;

/// `struct report` of integrations/openssl-conf/module.h.
const MAGIC: &[u8] = b"sesscache openssl_conf 1";
const NUMBERS: usize = 8;
const TEXTS: [usize; 4] = [64, 512, 512, 512];
const LENGTH: usize = MAGIC.len() + 4 * NUMBERS + 64 + 3 * 512;

struct Report {
    numbers: [u32; NUMBERS],
    texts: [String; 4],
}

pub fn examine(pid: u32) -> Result<Vec<Finding>, Failure> {
    let proc = Path::new("/proc").join(pid.to_string());
    let maps =
        fs::read_to_string(proc.join("maps")).map_err(Failure::system(format!("cannot look at process {pid}")))?;
    let has = |name: &str| maps.lines().any(|line| line.rsplit('/').next().is_some_and(|file| file.starts_with(name)));
    if !has("openssl_conf.so") {
        return Ok(vec![absent(&proc)]);
    }
    let fine = |subject, text: &str| Finding { subject, text: text.to_owned(), verdict: Verdict::Fine };
    let mut findings = vec![fine("module", "the process has the configuration module")];
    if !has("libssl.so") {
        let text = "it has no libssl: the module does nothing, and has not loaded the library".to_owned();
        findings.push(Finding { subject: "libssl", text, verdict: Verdict::Note });
        return Ok(findings);
    }
    let memory = File::open(proc.join("mem")).map_err(Failure::system(format!("cannot read process {pid}")))?;
    let report = maps.lines().filter(|line| line.contains("/openssl_conf.so")).find_map(|line| find(line, &memory));
    let Some(report) = report else {
        let text = "another version of sesscache installed it".to_owned();
        findings.push(Finding { subject: "report", text, verdict: Verdict::Do("restart the service".to_owned()) });
        return Ok(findings);
    };
    findings.extend(judge(&report));
    Ok(findings)
}

/// The module is not there: whether the process was told of a file at all.
fn absent(proc: &Path) -> Finding {
    let environment = fs::read(proc.join("environ")).unwrap_or_default();
    let named = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"OPENSSL_CONF="));
    let text = match named {
        Some(file) => format!(
            "the process has OPENSSL_CONF={} and not the configuration module: it has made no use of OpenSSL, skips \
             the file (OPENSSL_INIT_NO_LOAD_CONFIG), gained rights by its file, or could not load the module",
            String::from_utf8_lossy(file)
        ),
        None => "the process has neither OPENSSL_CONF nor the configuration module".to_owned(),
    };
    Finding {
        subject: "module",
        text,
        verdict: Verdict::Do("sesscache unit NAME, then restart the service".to_owned()),
    }
}

/// Looks for the report in a line of /proc/PID/maps.
fn find(line: &str, memory: &File) -> Option<Report> {
    let mut words = line.split(' ');
    let (from, to) = words.next()?.split_once('-')?;
    if !words.next()?.starts_with("rw") {
        return None;
    }
    let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
    let mut bytes = vec![0; usize::try_from(to - from).ok().filter(|len| *len <= 1 << 20)?];
    memory.read_exact_at(&mut bytes, from).ok()?;
    let at = bytes.windows(LENGTH).position(|window| window.starts_with(MAGIC))?;
    let mut rest = &bytes[at + MAGIC.len()..at + LENGTH];
    let mut report = Report { numbers: [0; NUMBERS], texts: Default::default() };
    for number in &mut report.numbers {
        let (four, left) = rest.split_first_chunk()?;
        *number = u32::from_ne_bytes(*four);
        rest = left;
    }
    for (text, len) in report.texts.iter_mut().zip(TEXTS) {
        let (bytes, left) = rest.split_at(len);
        *text = String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        rest = left;
    }
    Some(report)
}

fn judge(report: &Report) -> Vec<Finding> {
    let [made, attached, clients, off, refused, detached, failed, shared] = report.numbers;
    let [program, directory, options, message] = &report.texts;
    if directory.is_empty() {
        let text = "the file does not mean this program: programs = names others".to_owned();
        return vec![Finding { subject: "program", text, verdict: Verdict::Note }];
    }
    let note = |subject, text| Finding { subject, text, verdict: Verdict::Note };
    let mut findings = vec![
        Finding { subject: "program", text: program.clone(), verdict: Verdict::Fine },
        Finding {
            subject: "directory",
            text: format!("{directory} {options}").trim_end().to_owned(),
            verdict: Verdict::Fine,
        },
    ];
    let verdict = if attached > 0 { Verdict::Fine } else { Verdict::Note };
    let text = format!("{attached} attached of {made} made, here and in the processes it was forked from");
    findings.push(Finding { subject: "SSL_CTXs", text, verdict });
    if clients > 0 {
        findings.push(note("clients", format!("{clients} are for clients, and left alone")));
    }
    if off > 0 {
        let text = format!("{off} have their session cache switched off by the program, and are left alone");
        findings.push(Finding {
            subject: "switched off",
            text,
            verdict: Verdict::Do("set force = yes to attach them".to_owned()),
        });
    }
    if refused + detached > 0 {
        let text = format!("{} have session callbacks of the program, which stay", refused + detached);
        findings.push(note("callbacks", text));
    }
    if shared > 0 {
        let text = format!("{shared} lie in memory that processes share, and are left alone");
        findings.push(note("shared", text));
    }
    if failed > 0 {
        let remedy = format!("sesscache doctor {directory}");
        let text = format!("attach failed {failed} times: {message}");
        findings.push(Finding { subject: "failures", text, verdict: Verdict::Do(remedy) });
    } else if !message.is_empty() {
        findings.push(note("last message", message.clone()));
    }
    findings
}

/// A module that every program of the machine loads breaks every program when it is missing.
pub fn system_file() -> Option<Finding> {
    let names_it = |path: &&&str| fs::read_to_string(path).is_ok_and(|text| text.contains("openssl_conf.so"));
    let path = crate::unit::SYSTEM.iter().find(names_it)?;
    let text = format!("{path} names the module: every program reads it, and may end when the module is missing");
    let remedy = format!("take the module out of {path}, and run: sesscache unit NAME");
    Some(Finding { subject: "openssl.cnf", text, verdict: Verdict::Do(remedy) })
}
