//! The page of `GET /`: one file, which loads nothing from elsewhere.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// The page.
pub const HTML: &str = include_str!("page.html");

/// The Content-Security-Policy of the page: only its own style and script, and requests to its own
/// server.
pub fn policy() -> String {
    static POLICY: OnceLock<String> = OnceLock::new();
    let policy = || {
        format!(
            "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash("style"),
            hash("script")
        )
    };
    POLICY.get_or_init(policy).clone()
}

/// The hash of the text in the page's only element `tag`, as a policy names it.
fn hash(tag: &str) -> String {
    let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
    let text = HTML.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    let digest = Sha256::digest(text.map_or("", |(text, _)| text));
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest))
}
