//! The console: the page at `/` that shows the mesh to people.
//!
//! It is a handful of plain files in the program, without secrets, so nobody needs a token for it; what it shows it asks
//! of [`control`](super::control) with whatever token its reader gives it. The browser is told to run nothing but these
//! files, to talk to nobody but this peer, and to make no markup of any text, as the mesh's texts are strangers'.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use crypto::Digest;

/// What the page may do: its own files, this peer, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The paths.
pub fn router() -> Router {
    Router::new().route("/", get(async |headers: HeaderMap| answer("index.html", &headers))).route(
        "/console/{file}",
        get(async |Path(file): Path<String>, headers: HeaderMap| answer(&file, &headers)),
    )
}

/// Name, type and text of each file.
type File = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

macro_rules! file {
    ($name:literal, $kind:expr) => {
        ($name, $kind, include_str!(concat!("console/", $name)))
    };
}

const FILES: [File; 17] = [
    file!("index.html", HTML),
    file!("style.css", STYLE),
    file!("icon.svg", ICON),
    file!("app.js", SCRIPT),
    file!("ask.js", SCRIPT),
    file!("chat.js", SCRIPT),
    file!("diagram.js", SCRIPT),
    file!("jobs.js", SCRIPT),
    file!("live.js", SCRIPT),
    file!("market.js", SCRIPT),
    file!("mesh.js", SCRIPT),
    file!("models.js", SCRIPT),
    file!("page.js", SCRIPT),
    file!("plans.js", SCRIPT),
    file!("reach.js", SCRIPT),
    file!("receipts.js", SCRIPT),
    file!("rows.js", SCRIPT),
];

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return (StatusCode::NOT_FOUND, "the console has no such file; it begins at /").into_response();
    };
    let tag = format!("\"{}\"", Digest::of_content(text.as_bytes()).short());
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let head = [
        (header::CONTENT_TYPE, *kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Another version of the program brings another page: it is kept, and asked for again.
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, &tag),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, *text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the whole page: it has to be there at once, over a slow line, too.
    const MOST: usize = 300_000;

    #[test]
    fn the_page_is_small_and_its_files_are_whole() {
        let whole: usize = FILES.iter().map(|(.., text)| text.len()).sum();
        assert!(whole <= MOST, "{whole} bytes");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/console");
        let there = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(there, FILES.len(), "each file of the folder is served");
    }

    #[test]
    fn no_text_becomes_markup_and_no_file_names_another_host() {
        for (name, _, text) in FILES {
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https:"]
            {
                assert!(!text.contains(word), "{name} has `{word}`");
            }
        }
    }

    #[test]
    fn what_a_browser_has_is_not_sent_again() {
        let first = answer("app.js", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        let again = answer("app.js", &[(header::IF_NONE_MATCH, tag)].into_iter().collect());
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer("../app.js", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }
}
