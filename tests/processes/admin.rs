//! The admin port, asked by a probe, a scraper and a hostile page.

use crate::daemon::Daemon;
use crate::http_client::{Answer, Http};
use crate::rig::{Global, Local, SOON, client, dstore, name, until};
use crate::wire::Flow;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::net::UnixDatagram;

const ADMIN: &[&str] = &["--admin", "127.0.0.1:0"];
const OPERATIONS: &str = include_str!("../../docs/OPERATIONS.md");

fn host(url: &str) -> String {
    url.strip_prefix("http://").expect("a URL").to_owned()
}

async fn ask(at: &str, path: &str) -> Answer {
    Http::to(at).await.get(path).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).expect("text")
}

/// The value of the one sample that begins so.
fn sample(metrics: &str, begin: &str) -> u64 {
    let lines: Vec<&str> = metrics.lines().filter(|line| line.starts_with(begin)).collect();
    let [line] = lines[..] else { panic!("`{begin}` begins {lines:?} of {metrics}") };
    line.rsplit_once(' ').expect("a value").1.parse().expect("a whole number")
}

/// Both tiers, with a Local that has read what it holds.
async fn both() -> (Global, String, Local, String) {
    let mut global = Global::start(&["--admin", "127.0.0.1:0", "--lease", "10s", "--drain-timeout", "20s"]);
    let global_admin = host(&global.daemon.also_at("admin"));
    let mut local = Local::start_with(&global, ADMIN).await;
    let local_admin = host(&local.daemon.also_at("admin"));
    (global, global_admin, local, local_admin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scraper_reads_from_both_tiers_what_was_done() {
    let (_global, global_admin, local, local_admin) = both().await;
    local.client.set(&name("k"), "value").await.expect("set");
    local.holds("k").await;
    for _ in 0..20 {
        assert!(local.get("k").await.is_some());
    }
    assert!(local.get("absent").await.is_none());
    local.client.delete(&[name("k")]).await.expect("deleted");

    let answer = ask(&local_admin, "/metrics").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    let metrics = text(&answer);
    assert!(sample(&metrics, "dstore_local_reads_total{tier=\"local\"}") >= 20);
    assert!(sample(&metrics, "dstore_local_reads_total{tier=\"global\"}") >= 1);
    assert!(sample(&metrics, "dstore_local_miss_seconds_count") >= 1);
    assert_eq!(sample(&metrics, "dstore_local_serving"), 1);
    assert_eq!(sample(&metrics, "dstore_local_stale_serves_total"), 0);
    let of_local = names(&metrics);

    let metrics = text(&ask(&global_admin, "/metrics").await);
    assert_eq!(sample(&metrics, "dstore_global_sessions "), 1);
    assert!(sample(&metrics, "dstore_global_change_seconds_count") >= 2);
    assert!(sample(&metrics, "dstore_global_holder_wait_seconds_count") >= 1, "the DEL waited for the Local");
    assert!(sample(&metrics, "dstore_global_local_waits_total{local=\"process") >= 1);
    assert!(sample(&metrics, "dstore_global_journal_batch_changes_count") >= 2);
    let of_global = names(&metrics);

    let told: BTreeSet<String> = of_local.union(&of_global).cloned().collect();
    let documented = documented();
    let resp = |name: &&String| !name.starts_with("dstore_local_resp_");
    let missing: Vec<_> = told.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&told).filter(resp).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "not in docs/OPERATIONS.md: {missing:?}; only there: {gone:?}"
    );

    let status = ask(&global_admin, "/status.json").await.json();
    assert_eq!(
        (&status["tiers"][0]["tier"], &status["tiers"][0]["serving"]),
        (&"global".into(), &true.into())
    );
    let page = ask(&local_admin, "/").await;
    assert!(page.status == 200 && page.header("content-security-policy").starts_with("default-src 'none'"));
    for part in ["/page.js", "/page.css"] {
        assert!(text(&page).contains(part) && ask(&local_admin, part).await.status == 200, "{part}");
    }
}

/// The figures that docs/OPERATIONS.md tells of.
fn documented() -> BTreeSet<String> {
    let rows = OPERATIONS.lines().filter_map(|line| line.strip_prefix("| `dstore_")?.split('`').next());
    rows.map(|rest| format!("dstore_{rest}")).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_figures_that_there_are() {
    let documented = documented();
    for text in [
        include_str!("../../examples/ops/dstore-alerts.yml"),
        include_str!("../../examples/ops/grafana-dashboard.json"),
    ] {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let asked = text
            .split(|c| !is_word(c))
            .filter(|word| word.starts_with("dstore_global_") || word.starts_with("dstore_local_"));
        let mut count = 0;
        for word in asked {
            let figure = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(documented.contains(figure), "{word}");
            count += 1;
        }
        assert!(count >= 9, "{text}");
    }
}

fn names(metrics: &str) -> BTreeSet<String> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().expect("a name").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_lease_is_alive_and_not_ready_and_says_why() {
    let (_global, _, local, admin) = both().await;
    let ready = ask(&admin, "/readyz?verbose").await;
    assert_eq!((ready.status, text(&ready)), (200, "[+]session ok\n[+]lease ok\nok\n".to_owned()));
    assert_eq!(text(&ask(&admin, "/readyz").await), "ok\n");
    local.wire.set(Flow::Cut);
    until("it is not ready", async || ask(&admin, "/readyz").await.status == 503).await;
    until("its lease has lapsed", async || text(&ask(&admin, "/readyz").await).contains("[-]lease no lease"))
        .await;
    assert_eq!(ask(&admin, "/livez").await.status, 200);
    let lapses = async || sample(&text(&ask(&admin, "/metrics").await), "dstore_local_lease_lapses_total");
    until("the lapse is counted", async || lapses().await >= 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_global_that_waits_for_leases_at_its_end_says_that_it_is_ending() {
    let (mut global, admin, local, _) = both().await;
    local.client.set(&name("k"), "value").await.expect("set");
    local.holds("k").await;
    local.daemon.signal(Signal::STOP);
    global.daemon.signal(Signal::TERM);
    until("it is not ready", async || {
        let ready = ask(&admin, "/readyz").await;
        ready.status == 503 && text(&ready).contains("[-]serving")
    })
    .await;
    assert_eq!(ask(&admin, "/livez").await.status, 200);
    local.daemon.signal(Signal::CONT);
    let since = std::time::Instant::now();
    while global.daemon.ended().is_none() {
        assert!(since.elapsed() < SOON, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_answers_no_page_of_another_origin_and_changes_nothing() {
    let mut global = Global::start(ADMIN);
    let admin = host(&global.daemon.also_at("admin"));
    let mut http = Http::to(&admin).await;
    http.send(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    assert_eq!(http.answer(false).await.status, 421);
    for (header, value, wanted) in [
        ("Origin", "http://evil.example", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
    ] {
        let answer = Http::to(&admin).await.call("GET", "/metrics", &[(header, value)], b"").await;
        assert_eq!(answer.status, wanted, "{header}: {value}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = Http::to(&admin).await.call(method, "/metrics", &[], b"").await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
    }
    assert_eq!(ask(&admin, "/nothing").await.status, 404);
}

#[test]
fn beyond_this_machine_it_must_be_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    for verb in ["global", "local"] {
        let refused = dstore(dir.path(), &[verb, "--admin", "0.0.0.0:0"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("`0.0.0.0:0` can be reached from other machines"), "{said}");
    }
}

/// One JSON object for each line of the log.
fn told(daemon: &Daemon) -> Vec<serde_json::Value> {
    daemon
        .err()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hang_up_has_the_log_level_read_again_and_ends_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("dstore.toml");
    let write = |level: &str| {
        let text = format!("[global]\nlog = \"{level}\"\nlog-format = \"json\"\n");
        std::fs::write(&file, text).expect("written");
    };
    write("error");
    let args = ["global", "--listen", "127.0.0.1:0", "--config", "dstore.toml", "--min-free", "1MiB"];
    let mut command = dstore(dir.path(), &args);
    command.env_remove("DSTORE_LOG");
    let mut daemon = Daemon::start(command, "global");
    assert!(told(&daemon).is_empty(), "{:?}", told(&daemon));
    for (level, wanted) in
        [("info", "the log level was read again"), ("dstore=loud", "the log level stays as it was")]
    {
        write(level);
        daemon.signal(Signal::HUP);
        let says =
            |line: &serde_json::Value| line["message"].as_str().is_some_and(|text| text.contains(wanted));
        until("it was read again", async || told(&daemon).iter().any(says)).await;
    }
    assert!(client(&daemon.at).status().await.is_ok(), "it goes on");
    assert!(daemon.end(Signal::TERM).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_is_told_that_it_is_ready_alive_and_stopping() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = UnixDatagram::bind(dir.path().join("notify")).expect("bound");
    let mut command = dstore(dir.path(), &["global", "--listen", "127.0.0.1:0", "--min-free", "1MiB"]);
    command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "300000");
    let mut daemon = Daemon::start(command, "global");
    let word = async || {
        let mut bytes = [0; 256];
        let n = tokio::time::timeout(SOON, socket.recv(&mut bytes)).await.expect("told").expect("read");
        String::from_utf8_lossy(&bytes[..n]).trim().to_owned()
    };
    assert_eq!(word().await, "READY=1");
    for _ in 0..3 {
        assert_eq!(word().await, "WATCHDOG=1");
    }
    daemon.signal(Signal::TERM);
    while word().await != "STOPPING=1" {}
    until("it has ended in order", async || daemon.ended().is_some_and(|status| status.success())).await;
}

#[test]
fn a_shell_and_a_reader_get_what_the_command_line_is() {
    let dir = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let written = dstore(dir.path(), &["completions", shell]).output().expect("it runs");
        let script = String::from_utf8(written.stdout).expect("text");
        assert!(
            written.status.success() && script.contains("cache-bytes") && script.contains("salvage"),
            "{shell}"
        );
    }
    assert!(dstore(dir.path(), &["man", "pages"]).status().expect("it runs").success());
    for page in ["dstore.1", "dstore-global.1", "dstore-local.1", "dstore-ns-create.1"] {
        let text = std::fs::read_to_string(dir.path().join("pages").join(page)).expect(page);
        assert!(text.contains(".SH NAME"), "{page}: {text}");
    }
}
