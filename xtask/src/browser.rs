//! What a timeline's page does in a real browser: opened, pointed at and zoomed, with 100,000 calls in it; and its picture, of the
//! main job.
//!
//! The browser opens a copy of the page with a script behind its own, which does what a hand would do and writes down what came
//! of it. The browser then prints the page as it has become.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{Outcome, cargo, report, run};

const BROWSERS: [&str; 5] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

const CALLS: u64 = 100_000;

/// A frame at 60 a second has 16.7 ms. A browser without a graphics processor, on a machine that others use, is given more; a page
/// that draws each block by itself takes far longer.
const FRAME_MS: f64 = 50.0;

/// In the page, before its own script: no error goes unnoticed.
const BEFORE: &str = "<script>window.failures = [];
addEventListener('error', (event) => failures.push(String(event.message)));
addEventListener('unhandledrejection', (event) => failures.push(String(event.reason)));
console.error = (...words) => failures.push(words.join(' '));</script>";

/// Behind it: looks, points, zooms, moves, and goes back.
const BEHIND: &str = r#"<pre id="found"></pre><script>
(() => {
  const page = window.timeline, canvas = document.getElementById("canvas"), tip = document.getElementById("tip");
  const found = {};
  const box = canvas.getBoundingClientRect();
  const event = (kind, name, x, y, more) =>
    canvas.dispatchEvent(new kind(name, { bubbles: true, cancelable: true, clientX: box.left + x, clientY: box.top + y, ...more }));
  const median = (times) => { times.sort((one, other) => one - other); return times[times.length >> 1]; };
  const drawing = () => median(Array.from({ length: 9 }, () => { page.draw(); return page.took; }));
  const center = (row) => page.top(row) + page.LANE / 2;
  const inked = (row) => {
    const ratio = devicePixelRatio || 1, width = canvas.width - Math.ceil(190 * ratio);
    const pixels = canvas.getContext("2d").getImageData(Math.ceil(180 * ratio), Math.round(center(row) * ratio), width, 1).data;
    let colours = new Set();
    for (let at = 0; at < pixels.length; at += 4) colours.add(pixels[at] << 16 | pixels[at + 1] << 8 | pixels[at + 2]);
    return colours.size;
  };
  found.total = page.total;
  found.lanes = page.lanes.length;
  found.names = page.lanes.map((lane) => lane.name).join(" ");
  found.whole_ms = drawing();
  found.drawn = page.drawn;
  found.inked = page.lanes.filter((lane, row) => lane.count && inked(row) > 1).length;
  found.filled = page.lanes.filter((lane) => lane.count).length;
  found.failures = document.querySelector("dd.bad")?.textContent ?? "0";
  found.dead = page.lanes.filter((lane) => lane.died).length;
  const row = page.lanes.reduce((most, lane, row) => (lane.count > page.lanes[most].count ? row : most), 0);
  const lane = page.lanes[row], middle = lane.count >> 1;
  const x = page.x((lane.began[middle] + lane.ended[middle]) / 2);
  event(PointerEvent, "pointermove", x, center(row));
  found.tip = tip.hidden ? "" : tip.innerText.replaceAll("\n", " | ");
  const before = page.view;
  for (let turn = 0; turn < 12; turn++) event(WheelEvent, "wheel", x, center(row), { deltaY: -200 });
  found.zoomed = (before.to - before.from) / (page.view.to - page.view.from);
  found.zoomed_ms = drawing();
  found.zoomed_drawn = page.drawn;
  const zoomed = page.view;
  event(PointerEvent, "pointerdown", 600, center(row), { pointerId: 1 });
  event(PointerEvent, "pointermove", 500, center(row), { pointerId: 1 });
  event(PointerEvent, "pointerup", 500, center(row), { pointerId: 1 });
  found.moved = page.view.from > zoomed.from;
  document.getElementById("reset").click();
  found.reset = page.view.from === before.from && page.view.to === before.to;
  found.errors = window.failures.join("; ");
  document.getElementById("found").textContent = Object.entries(found).map(([name, value]) => `${name}=${value}`).join("\n");
})();
</script>"#;

/// # Errors
/// What the page did not do, or that there is no browser.
pub(crate) fn browser() -> Outcome {
    let browser = find().ok_or(
        "there is no browser: `apt-get install chromium` (or set BROWSER to a Chromium or Chrome that is installed)",
    )?;
    let place = env::temp_dir().join(format!("timeline-{}", std::process::id()));
    fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    let outcome = look(&browser, &place).and_then(|()| picture(&browser, &place));
    let _ = fs::remove_dir_all(&place); // what is left in the temporary directory hurts nobody
    outcome
}

fn find() -> Option<PathBuf> {
    let chosen = env::var_os("BROWSER").map(PathBuf::from);
    let paths: Vec<_> = env::split_paths(&env::var_os("PATH")?).collect();
    let known = || paths.iter().flat_map(|path| BROWSERS.map(|name| path.join(name))).find(|path| path.is_file());
    chosen.or_else(known)
}

fn headless(browser: &Path) -> Command {
    let mut command = Command::new(browser);
    command.args(["--headless", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,720"]);
    command.args(["--enable-logging=stderr", "--log-level=0"]);
    // Its sandbox needs rights that a container has not got, and there is nothing on the page but our own.
    command.arg("--no-sandbox");
    command
}

fn page_of(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// Opens a page of many calls, and does with it what a hand would do.
fn look(browser: &Path, place: &Path) -> Outcome {
    let page = place.join("run.html");
    let mut example = cargo(&["run", "--quiet", "--release", "--example", "timeline", "--"]);
    example.arg(&page).arg(CALLS.to_string()).env("RUST_BACKTRACE", "0");
    run("a timeline of many calls", example)?;
    let text = fs::read_to_string(&page).map_err(|error| error.to_string())?;
    let probed =
        text.replacen("<style>", &format!("{BEFORE}<style>"), 1).replacen("</body>", &format!("{BEHIND}</body>"), 1);
    let copy = place.join("probed.html");
    fs::write(&copy, probed).map_err(|error| error.to_string())?;

    let began = Instant::now();
    let output = headless(browser).arg("--dump-dom").arg(page_of(&copy)).output().map_err(|error| error.to_string())?;
    report("browser", began);
    let dom = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    // It has advice for who reads pixels, as only this script does.
    let console: Vec<&str> =
        said.lines().filter(|line| line.contains("CONSOLE") && !line.contains("willReadFrequently")).collect();
    let list = dom.split_once("<pre id=\"found\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let list = list.map(|(list, _)| list).filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| format!("the page has not come to its end: {console:?}\n{said}"))?;
    let found: HashMap<&str, &str> = list.lines().filter_map(|line| line.split_once('=')).collect();
    println!("{list}");

    let number = |name: &str| found.get(name).and_then(|value| value.parse::<f64>().ok()).unwrap_or(f64::NAN);
    let text = |name: &str| found.get(name).copied().unwrap_or_default();
    // 40 and 20 and one that its worker does not survive, which has a successor if there is something left to do; and a span
    // beside them.
    let calls = (CALLS + 40 + 20 + 1 + 1) as f64;
    let tip = text("tip");
    let checks = [
        ("every call is there", number("total") == calls),
        ("all of them are drawn", number("drawn") == calls),
        ("a lane for each worker, and one beside", [7.0, 8.0].contains(&number("lanes"))),
        ("lanes have names", text("names").contains("threads-3") && text("names").contains("processes-1")),
        ("something is drawn in each that has calls", number("inked") == number("filled") && number("filled") >= 6.0),
        ("failures are counted", text("failures") == "5"),
        ("a dead worker is marked", number("dead") == 1.0),
        // Of optimised code without all debugging information, the name is without its path.
        ("a tip names the function", tip.starts_with("work |") || tip.contains("timeline::work |")),
        ("and its site", tip.contains("submitted at examples/timeline.rs:")),
        ("and its times", tip.contains("waited") && tip.contains("ran")),
        ("the wheel zooms", number("zoomed") > 100.0),
        ("and fewer are drawn then", number("zoomed_drawn") < calls / 10.0),
        ("a drag moves", text("moved") == "true"),
        ("and a button goes back", text("reset") == "true"),
        ("all are drawn within a frame", number("whole_ms") < FRAME_MS),
        ("and so is a part", number("zoomed_ms") < FRAME_MS),
        ("nothing went wrong", text("errors").is_empty() && console.is_empty()),
    ];
    let wrong: Vec<&str> = checks.into_iter().filter(|(_, holds)| !holds).map(|(what, _)| what).collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("the page of a timeline: not so: {}\n{}", wrong.join("; not so: "), console.join("\n")))
    }
}

/// The main job on processes, as it looks in a browser, for the documentation.
fn picture(browser: &Path, place: &Path) -> Outcome {
    let page = place.join("gutenberg.html");
    let mut job = cargo(&["run", "--quiet", "--release", "--example", "gutenberg", "--"]);
    job.args(["--backend", "process", "--workers", "4", "--timeline"]).arg(&page);
    run("the main job", job)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let picture = root.join("docs/timeline.png");
    let mut shot = headless(browser);
    shot.arg("--window-size=1280,510"); // the last one holds
    shot.arg(format!("--screenshot={}", picture.display())).arg(page_of(&page));
    let output = shot.output().map_err(|error| error.to_string())?;
    let length = fs::metadata(&picture).map_or(0, |metadata| metadata.len());
    if !output.status.success() || length < 10_000 {
        return Err(format!("no picture: {}", String::from_utf8_lossy(&output.stderr)));
    }
    println!("docs/timeline.png: {} KiB", length / 1024);
    Ok(())
}
