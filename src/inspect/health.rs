//! What `doctor` looks at.

/// One thing that was looked at.
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it is.
    pub text: String,
    /// What to do about it; `None` when it is fine.
    pub remedy: Option<String>,
}

/// Looks at everything about the directory.
pub fn examine(_path: &std::path::Path) -> Vec<Finding> {
    Vec::new()
}
