//! `cargo xtask api`: what users of the façade can name, in a listing that is committed. So a change of it is seen in review.
//!
//! It is read from the pages that rustdoc writes, which show also what was re-exported from other crates. No crate is needed for that, and no
//! form of rustdoc's that only a nightly compiler has. A new compiler may write it in another way: then the listing changes, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
};

use crate::{Outcome, cargo, run, target};

const LISTING: &str = "docs/public-api.txt";
const CRATE: &str = "concurrent_futures";

/// Traits that cannot be named without a nightly compiler.
const UNSTABLE: [&str; 3] = ["Freeze", "StructuralPartialEq", "UnsafeUnpin"];

/// Compares the listing with the sources, or writes it.
///
/// # Errors
/// The lines that are new, or gone.
pub(crate) fn api(bless: bool) -> Outcome {
    run(
        "public interface",
        cargo(&["doc", "--quiet", "--no-deps", "--all-features", "--package", "concurrent-futures"]),
    )?;
    let pages = target()?.join("doc").join(CRATE);
    let page = |name: &str| {
        let path = pages.join(name);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut items = BTreeMap::new();
    for name in links(&page("all.html")?) {
        let path = name.rsplit_once('/').map_or(String::new(), |(module, _)| module.replace('/', "::") + "::");
        let mut parts = name.rsplit('/').next().unwrap_or(name).split('.');
        let (kind, item) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        items.insert(format!("{path}{item} ({kind})"), lines(&page(name)?)?);
    }
    let mut now = String::new();
    for (item, lines) in &items {
        let _ = writeln!(now, "{item}");
        lines.iter().for_each(|line| _ = writeln!(now, "    {line}"));
    }
    if items.len() < 50 || !now.contains("\n        pub fn result(self) -> Result<R, TaskError>\n") {
        return Err(format!("{} has its pages written in a way that is not understood here", pages.display()));
    }
    if bless {
        fs::write(LISTING, now).map_err(|error| format!("{LISTING}: {error}"))?;
        eprintln!("── {LISTING} is written; what has changed for users belongs into CHANGELOG.md");
        return Ok(());
    }
    let before = fs::read_to_string(LISTING).map_err(|error| format!("{LISTING}: {error}"))?;
    match difference(&before, &now) {
        None => Ok(()),
        Some(lines) => Err(format!(
            "the public interface is not that of {LISTING}:\n{lines}`cargo xtask api --bless` writes it anew; say in CHANGELOG.md what \
             users have to know"
        )),
    }
}

/// What one listing has and the other has not, each line after the item to which it belongs.
fn difference(before: &str, now: &str) -> Option<String> {
    if before == now {
        return None;
    }
    let of_items = |listing: &str| -> BTreeSet<(String, String)> {
        let mut item = String::new();
        let with_item = |line: &str| {
            if !line.starts_with(' ') {
                line.clone_into(&mut item);
            }
            (item.clone(), line.trim_start().to_owned())
        };
        listing.lines().map(with_item).collect()
    };
    let (before, now) = (of_items(before), of_items(now));
    let mut lines = String::new();
    for (mark, these, others) in [('-', &before, &now), ('+', &now, &before)] {
        these.difference(others).for_each(|(item, line)| _ = writeln!(lines, "{mark} {item}: {line}"));
    }
    Some(if lines.is_empty() { "the order of lines\n".to_owned() } else { lines })
}

/// The pages that the page of all items leads to.
fn links(all: &str) -> Vec<&str> {
    let lists = all.split("<ul class=\"all-items\">").skip(1).filter_map(|list| list.split("</ul>").next());
    lists.flat_map(|list| list.split("href=\"").skip(1).filter_map(|link| link.split('"').next())).collect()
}

/// An item as it is declared, then its implementations, each with its own methods.
fn lines(page: &str) -> Result<Vec<String>, String> {
    let declared =
        page.split("<pre class=\"rust item-decl\"><code>").nth(1).and_then(|rest| rest.split("</code></pre>").next());
    let mut declared = text(declared.ok_or("a page declares nothing")?);
    if declared.contains("trait ") {
        // What it asks for and offers follows one by one.
        declared = declared.split(" {").next().unwrap_or_default().to_owned();
    }
    // What every type has is no news.
    let page = page.split("id=\"blanket-implementations\"").next().unwrap_or_default();
    let mut implementations: Vec<(String, BTreeSet<String>)> = vec![(String::new(), BTreeSet::new())];
    for section in page.split("<section id=\"").skip(1) {
        let class = section.split("class=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let Some(header) = section.split("class=\"code-header\">").nth(1) else { continue };
        let header = text(header.split("</h3>").next().unwrap_or_default().split("</h4>").next().unwrap_or_default());
        match class {
            "impl" => implementations.push((header, BTreeSet::new())),
            "method" | "associatedtype" | "associatedconstant" => {
                // One more of these is more than one more thing that is there.
                let required = if section.starts_with("tymethod.") { "required: " } else { "" };
                let header = required.to_owned() + &header;
                implementations.last_mut().expect("the first is the item").1.insert(header);
            }
            _ => {}
        }
    }
    implementations.retain(|(header, _)| !UNSTABLE.iter().any(|name| header.contains(&format!(" {name} for "))));
    implementations[1..].sort();
    let mut lines = vec![declared];
    for (header, methods) in implementations {
        lines.extend((!header.is_empty()).then_some(header));
        lines.extend(methods.into_iter().map(|method| format!("    {method}")));
    }
    Ok(lines)
}

/// What a reader of a page sees, in one line.
fn text(html: &str) -> String {
    // Where a line begins; and what is to be clicked on to see more.
    let html = html.replace("<div", " <div").replace("</div>", "</div> ").replace("<summary", "\0<summary");
    let seen =
        html.split('\0').map(|part| part.split_once("</summary>").map_or(part, |(_, rest)| rest)).collect::<String>();
    let mut seen: String = seen.split('<').map(|part| part.split_once('>').map_or(part, |(_, rest)| rest)).collect();
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&"), ("ⓘ", "")];
    for (written, meant) in entities {
        seen = seen.replace(written, meant);
    }
    let seen = seen.split_whitespace().collect::<Vec<_>>().join(" ");
    seen.replace("( ", "(").replace(", )", ")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_as_they_are_seen() {
        let page = "<pre class=\"rust item-decl\"><code>pub struct <a href=\"x\">Of</a>&lt;T&gt; {\n  <details><summary>Show 2 \
                    fields</summary>a: u8 }</code></pre><section id=\"impl-Of\" class=\"impl\"><a>Source</a><h3 \
                    class=\"code-header\">impl&lt;T&gt; Of&lt;T&gt;</h3></section><section id=\"m\" class=\"method\"><h4 \
                    class=\"code-header\">pub fn b()</h4></section><section id=\"n\" class=\"method\"><h4 \
                    class=\"code-header\">pub fn a(\n  &amp;self)<div class=\"where\">where\n T: Send,</div></h4></section>\
                    <section id=\"o\" class=\"method trait-impl\"><h4 class=\"code-header\">fn c()</h4></section><section \
                    id=\"impl-Freeze\" class=\"impl\"><h3 class=\"code-header\">impl Freeze for Of</h3></section><h2 \
                    id=\"blanket-implementations\"><section id=\"impl-Any\" class=\"impl\"><h3 \
                    class=\"code-header\">impl Any for T</h3></section>";
        let expected =
            ["pub struct Of<T> { a: u8 }", "impl<T> Of<T>", "    pub fn a(&self) where T: Send,", "    pub fn b()"];
        assert_eq!(lines(page).unwrap(), expected);
        assert_eq!(
            links("<a href=\"no\"><ul class=\"all-items\"><li><a href=\"x/fn.y.html\">y</a></ul>"),
            ["x/fn.y.html"]
        );
    }

    #[test]
    fn a_change_is_told_with_its_item() {
        let before = "A (struct)\n    pub fn a()\n    pub fn b()\nB (struct)\n    pub fn a()\n";
        assert_eq!(difference(before, before), None);
        let told = difference(
            before,
            &before.replace("    pub fn b()\nB", "B").replace("B (struct)\n", "B (struct)\n    pub fn c()\n"),
        );
        assert_eq!(told.unwrap(), "- A (struct): pub fn b()\n+ B (struct): pub fn c()\n");
    }
}
