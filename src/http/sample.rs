//! The sample page of the JavaScript client, for brokers with development keys.
//!
//! It is part of the program, so that no file is read at run time and a copied program is complete.

use super::Answer;

/// The asset at a path.
pub(super) fn find(path: &str) -> Option<Answer> {
    let (_, content_type, body) = ASSETS.into_iter().find(|(name, ..)| *name == path)?;
    Some(Answer { status: "200 OK", content_type, lines: SAFETY, body })
}

/// Path, media type, content. The script in `dist` is the build of `clients/javascript`; it is kept
/// with the sources, so that the broker is built without Node.
const ASSETS: [(&str, &str, &[u8]); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_bytes!("../../clients/javascript/samples/index.html"),
    ),
    (
        "/sample.css",
        "text/css; charset=utf-8",
        include_bytes!("../../clients/javascript/samples/sample.css"),
    ),
    (
        "/sample.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../clients/javascript/samples/sample.js"),
    ),
    (
        "/dist/com-broker.js",
        "text/javascript; charset=utf-8",
        include_bytes!("../../clients/javascript/dist/com-broker.js"),
    ),
];

/// The page runs its own script and connects to brokers, and does nothing else.
const SAFETY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src data:; connect-src ws: wss:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n";
