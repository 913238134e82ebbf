//! What a timeline writes. What a browser makes of it: `cargo xtask browser`.

use crate::support::{Gate, Place, pass};
use concurrent_futures::{
    Executor, ProcessPoolExecutor, RetryPolicy, Shutdown, TaskOptions, ThreadPoolExecutor, timeline::Timeline,
};
use serde_json::Value;
use std::{fs, process};

fn cube(x: u64) -> u64 {
    x.pow(3)
}

fn fail(text: String) -> u64 {
    panic!("{text}")
}

/// A run with an ending of each kind.
fn recorded() -> Timeline {
    let timeline = Timeline::new();
    let threads =
        ThreadPoolExecutor::builder().max_workers(1).thread_name_prefix("</script>\"é").observer(timeline.clone());
    let threads = threads.build().unwrap();
    threads.map(cube, 0..50).chunk_size(1).for_each(|cube| assert!(cube.is_ok()));
    threads.submit(fail, "</script><b>&\"".into()).wait();
    threads.with(TaskOptions::new().retry(RetryPolicy::attempts(2))).submit(fail, "again".into()).wait();
    let gate = Gate::new();
    let held = threads.submit(pass, gate.key());
    gate.await_arrivals(1);
    assert!(threads.submit(cube, 1).cancel());
    gate.open();
    held.wait();
    let builder = ProcessPoolExecutor::builder().max_workers(1).process_name_prefix("processes");
    let processes = builder.observer(timeline.clone()).build().unwrap();
    processes.submit(|code| -> () { process::exit(code) }, 3).wait();
    processes.submit(cube, 2).wait();
    timeline.span("beside", || ());
    threads.shutdown(Shutdown::wait());
    processes.shutdown(Shutdown::wait());
    timeline
}

#[test]
fn a_trace_has_every_call_in_its_workers_lane() {
    let place = Place::new();
    let path = place.path("run.json");
    recorded().write_json(&path).unwrap();
    let trace: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |phase: &'static str| events.iter().filter(move |event| event["ph"] == phase);
    let called = |name: &'static str| of("X").filter(move |event| event["name"].as_str().unwrap().ends_with(name));
    assert_eq!((called("timeline::cube").count(), called("timeline::fail").count()), (51, 3));
    assert_eq!((called("beside").count(), called("support::pass").count()), (1, 1));
    assert_eq!(of("X").count(), 51 + 3 + 1 + 1 + 1);
    let outcomes = |outcome: &str| of("X").filter(|event| event["args"]["outcome"] == outcome).count();
    assert_eq!((outcomes("failed"), outcomes("failed, and was made again"), outcomes("running")), (3, 1, 0));
    let site = called("timeline::fail").next().unwrap()["args"]["submitted at"].as_str().unwrap();
    assert!(site.starts_with(file!()), "{site}");
    let lanes = of("M").filter(|event| event["name"] == "thread_name").count();
    assert_eq!(lanes, 4, "a thread, two processes, and what was beside");
    let died = of("i").filter(|event| event["name"] == "worker died: it exited with code 3").count();
    assert_eq!((died, of("i").filter(|event| event["cat"] == "failure").count()), (1, 4));
    assert!(called("timeline::cube").all(|event| event["ts"].as_f64() > Some(0.0) && event["dur"].as_f64().is_some()));
}

/// One file, with nothing in it that a name or an error could have put there as markup.
#[test]
fn a_page_is_one_file_and_holds_everything() {
    let place = Place::new();
    let path = place.path("run.html");
    recorded().write_html(&path).unwrap();
    let page = fs::read_to_string(path).unwrap();
    assert_eq!((page.matches("<script").count(), page.matches("</script>").count()), (2, 2));
    assert!(!page.contains("src=") && !page.contains("http"), "it needs no network");
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: Value = serde_json::from_str(data).unwrap();
    let lanes = data["lanes"].as_array().unwrap();
    let calls: usize = lanes.iter().map(|lane| lane["began"].as_array().unwrap().len()).sum();
    assert_eq!((lanes.len(), calls, &data["cancelled"], &data["missing"]), (4, 57, &1.into(), &0.into()));
    assert_eq!(lanes.iter().filter(|lane| lane["died"] == true).count(), 1);
    assert!(lanes[0]["name"].as_str().unwrap().starts_with("</script>\"é"));
    assert!(data["errors"].as_array().unwrap().iter().any(|error| error.as_str().unwrap().contains("</script><b>&\"")));
    let fields = ["began", "ran", "waited", "task", "kind", "ended"];
    for lane in lanes {
        let lengths: Vec<_> = fields.iter().map(|field| lane[*field].as_array().unwrap().len()).collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    }
}

/// What still runs is drawn up to now.
#[test]
fn a_timeline_can_be_written_while_calls_run() {
    let place = Place::new();
    let timeline = Timeline::new();
    let pool = ThreadPoolExecutor::builder().max_workers(1).observer(timeline.clone()).build().unwrap();
    let gate = Gate::new();
    let _held = pool.submit(pass, gate.key());
    let _waiting = pool.submit(cube, 1);
    gate.await_arrivals(1);
    crate::support::eventually("the running call is told", || {
        timeline.write_json(place.path("run.json")).unwrap();
        fs::read_to_string(place.path("run.json")).unwrap().contains("\"outcome\":\"running\"")
    });
    gate.open();
}
