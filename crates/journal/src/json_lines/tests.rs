use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;

use super::*;
use crate::contract::audit;

fn request_ids(path: &Path) -> Vec<String> {
    ids_of(&std::fs::read(path).unwrap())
}

fn ids_of(lines: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(lines).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["request_id"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// A target that does what the test tells it, try by try.
struct Scripted {
    steps: mpsc::Receiver<Step>,
    file: Arc<Mutex<Vec<u8>>>,
    sync_fails: bool,
}

/// What the target does when it is next written to. Without a step it takes everything.
enum Step {
    /// Take so many bytes.
    Take(usize),
    Fail,
    /// Take everything and fail the sync.
    FailSync,
    /// Tell the test, and wait until it drops its end.
    Pause(mpsc::Sender<()>, mpsc::Receiver<()>),
    Panic,
}

impl Target for Scripted {
    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let take = match self.steps.try_recv() {
            Ok(Step::Take(count)) => count,
            Ok(Step::Fail) => return Err(io::ErrorKind::StorageFull.into()),
            Ok(Step::FailSync) => {
                self.sync_fails = true;
                bytes.len()
            }
            Ok(Step::Pause(reached, release)) => {
                reached.send(()).unwrap();
                assert!(release.recv().is_err());
                bytes.len()
            }
            Ok(Step::Panic) => panic!("as the test told"),
            Err(_) => bytes.len(),
        };
        self.file.lock().unwrap().extend_from_slice(&bytes[..take]);
        Ok(take)
    }

    fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.sync_fails) {
            // What was not synced is lost.
            self.file.lock().unwrap().clear();
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Written = Arc<Mutex<Vec<u8>>>;

fn scripted(sync: bool, records_max: usize) -> (JsonLinesSink, mpsc::Sender<Step>, Written) {
    let (tell, steps) = mpsc::channel();
    let file = Written::default();
    let target = Scripted { steps, file: Arc::clone(&file), sync_fails: false };
    let options = LinesOptions { sync, records_max, ..LinesOptions::default() };
    let sink = JsonLinesSink::start(Path::new("audit.jsonl"), options, target).unwrap();
    (sink, tell, file)
}

/// Makes the writer stop inside its next write. Once the first channel speaks it is there; dropping
/// the second lets it go on.
fn pause(tell: &mpsc::Sender<Step>) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (reached, is_there) = mpsc::channel();
    let (release, go_on) = mpsc::channel();
    tell.send(Step::Pause(reached, go_on)).unwrap();
    (is_there, release)
}

/// Waits until the writer is where the test wants it; the limit only turns a hang into a failure.
fn await_writer(is_there: &mpsc::Receiver<()>) {
    is_there.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
}

#[tokio::test]
async fn records_reach_the_file_in_order_and_survive_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/deep/audit.jsonl");
    for (sync, ids) in [(false, ["1", "2"]), (true, ["3", "4"])] {
        let sink = JsonLinesSink::open(&path, sync).unwrap();
        assert_eq!((sink.waits(), sink.healthy()), (sync, true));
        for id in ids {
            sink.submit(audit(id)).unwrap();
        }
        sink.flush().await.unwrap();
        assert_eq!(request_ids(&path).last().map(String::as_str), Some(ids[1]));
        assert_eq!(sink.counts(), AuditCounts { written: 2, refused: 0 });
        sink.flush().await.unwrap();
    }
    assert_eq!(request_ids(&path), ["1", "2", "3", "4"]);

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&directory.path().join("new")), 0o700);
}

#[test]
fn records_are_written_without_being_asked_for() {
    let (sink, tell, file) = scripted(false, 10);
    let (is_there, release) = pause(&tell);
    sink.submit(audit("1")).unwrap();
    // Nobody flushes or closes, and yet the writer comes.
    await_writer(&is_there);
    drop(release);
    sink.close().unwrap();
    assert_eq!(ids_of(&file.lock().unwrap()), ["1"]);
}

#[test]
fn a_torn_line_is_ended_when_the_file_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    for (before, after) in [("{\"torn", "{\"torn\n"), ("{}\n", "{}\n"), ("", "")] {
        std::fs::write(&path, before).unwrap();
        JsonLinesSink::open(&path, false).unwrap().close().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
    }
}

#[test]
fn a_hundred_threads_lose_nothing() {
    const THREADS: usize = 100;
    const EACH: usize = 200;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let sink = JsonLinesSink::open(&path, false).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let sink = &sink;
            scope.spawn(move || {
                for n in 0..EACH {
                    sink.submit(audit(&format!("{thread}-{n}"))).unwrap();
                }
            });
        }
    });
    sink.close().unwrap();
    let ids = request_ids(&path);
    assert_eq!(ids.len(), THREADS * EACH);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), THREADS * EACH);
    // Each thread's records are in the order in which it handed them over.
    let own = |thread: usize| {
        let prefix = format!("{thread}-");
        ids.iter().filter_map(move |id| id.strip_prefix(&prefix)).map(str::to_owned)
    };
    for thread in 0..THREADS {
        assert!(own(thread).eq((0..EACH).map(|n| n.to_string())), "thread {thread}");
    }
}

#[test]
fn a_full_queue_refuses_and_counts_what_is_being_written() {
    let (sink, tell, file) = scripted(false, 3);
    let (is_there, release) = pause(&tell);
    sink.submit(audit("1")).unwrap();
    await_writer(&is_there);
    sink.submit(audit("2")).unwrap();
    sink.submit(audit("3")).unwrap();
    let refused = sink.submit(audit("4")).unwrap_err();
    assert!(matches!(refused, AuditError::Full { records_max: 3 }), "{refused}");
    assert!(!sink.healthy());
    assert_eq!(sink.counts(), AuditCounts { written: 0, refused: 1 });
    drop(release);
    sink.close().unwrap();
    assert_eq!(ids_of(&file.lock().unwrap()), ["1", "2", "3"]);
    assert_eq!(sink.counts(), AuditCounts { written: 3, refused: 1 });
}

#[test]
fn close_writes_everything_and_then_takes_nothing() {
    let (sink, _tell, file) = scripted(false, 100_000);
    let ids: Vec<String> = (0..2 * BATCH_RECORDS).map(|n| n.to_string()).collect();
    for id in &ids {
        sink.submit(audit(id)).unwrap();
    }
    sink.close().unwrap();
    sink.close().unwrap();
    assert_eq!(ids_of(&file.lock().unwrap()), ids);
    assert!(matches!(sink.submit(audit("late")), Err(AuditError::Closed)));
    assert!(!sink.healthy());
}

#[tokio::test]
async fn an_unwritable_file_refuses_until_it_can_be_written() {
    let (sink, tell, file) = scripted(false, 100);
    // A disk that fills up in the middle of a line.
    tell.send(Step::Take(10)).unwrap();
    tell.send(Step::Fail).unwrap();
    let (is_there, release) = pause(&tell);
    sink.submit(audit("1")).unwrap();
    let failed = sink.flush().await.unwrap_err();
    assert!(matches!(&failed, AuditError::Unwritable { .. }), "{failed}");
    let refused = sink.submit(audit("2")).unwrap_err();
    assert!(matches!(&refused, AuditError::Unwritable { .. }), "{refused}");
    assert!(!sink.healthy());

    // Nobody asks for it, and yet it is tried again, and goes on where it stopped.
    await_writer(&is_there);
    drop(release);
    let recovered = sink.shared.progress.subscribe().wait_for(|now| now.written == 1).await.is_ok();
    assert!(recovered && sink.healthy());
    sink.submit(audit("3")).unwrap();
    sink.flush().await.unwrap();
    assert_eq!(ids_of(&file.lock().unwrap()), ["1", "3"]);
    assert_eq!(sink.counts(), AuditCounts { written: 2, refused: 1 });
}

#[tokio::test]
async fn a_failed_sync_writes_the_batch_again() {
    let (sink, tell, file) = scripted(true, 100);
    tell.send(Step::FailSync).unwrap();
    let (is_there, release) = pause(&tell);
    sink.submit(audit("1")).unwrap();
    assert!(matches!(sink.flush().await, Err(AuditError::Unwritable { .. })));
    await_writer(&is_there);
    drop(release);
    sink.close().unwrap();
    assert_eq!(ids_of(&file.lock().unwrap()), ["1"]);
}

#[test]
fn closing_says_what_is_lost() {
    let (sink, tell, _file) = scripted(false, 100);
    let (is_there, release) = pause(&tell);
    sink.submit(audit("1")).unwrap();
    await_writer(&is_there);
    for id in ["2", "3"] {
        sink.submit(audit(id)).unwrap();
    }
    // More tries than the writer can make before it sees that it is to end.
    for _ in 0..100 {
        tell.send(Step::Fail).unwrap();
    }
    drop(release);
    let lost = sink.close().unwrap_err();
    assert!(matches!(lost, AuditError::Lost { records: 2, source: Some(_), .. }), "{lost:?}");
}

#[tokio::test]
async fn a_writer_that_panics_closes_the_sink() {
    let (sink, tell, _file) = scripted(false, 100);
    tell.send(Step::Panic).unwrap();
    sink.submit(audit("1")).unwrap();
    assert!(matches!(sink.flush().await, Err(AuditError::Closed)));
    assert!(matches!(sink.submit(audit("2")), Err(AuditError::Closed)));
    assert!(matches!(sink.close(), Err(AuditError::Lost { records: 1, .. })));
}

#[tokio::test]
async fn a_full_disk_is_noticed() {
    // Every write to this device fails for want of space.
    let sink = JsonLinesSink::open(Path::new("/dev/full"), false).unwrap();
    sink.submit(audit("1")).unwrap();
    let failed = sink.flush().await.unwrap_err();
    let AuditError::Unwritable { source, .. } = &failed else { panic!("{failed}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(matches!(sink.close(), Err(AuditError::Lost { records: 1, .. })));
}

#[test]
fn a_record_takes_what_the_bound_on_memory_says() {
    // The texts of a record, most of them shared, are left out.
    assert!(RECORDS_MAX_DEFAULT * size_of::<AuditEntry>() <= 20 * 1024 * 1024);
}

#[test]
fn a_path_that_cannot_be_written_is_an_error_at_once() {
    fn check(path: &Path, expected: &str) {
        let error = JsonLinesSink::open(path, false).err().unwrap();
        assert_eq!(error.to_string(), expected);
        assert!(std::error::Error::source(&error).is_some());
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let shown = root.display();
    std::fs::write(root.join("file"), "").unwrap();
    check(root, &format!("audit file `{shown}` cannot be opened for appending"));
    check(
        &root.join("file/audit.jsonl"),
        &format!("directory `{shown}/file` of the audit file cannot be created"),
    );
}

#[tokio::test]
async fn a_file_that_is_moved_or_deleted_is_followed_by_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let moved = directory.path().join("audit.1.jsonl");
    let sink = JsonLinesSink::open(&path, true).unwrap();
    for id in ["1", "2", "3"] {
        sink.submit(audit(id)).unwrap();
        sink.flush().await.unwrap();
        assert_eq!(request_ids(&path), [id]);
        match id {
            "1" => std::fs::rename(&path, &moved).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
    }
    assert_eq!(request_ids(&moved), ["1"]);
}

#[test]
fn what_is_no_file_cannot_be_synced_and_a_pipe_without_a_reader_is_no_place() {
    let open = |path: &str, sync| JsonLinesSink::open(Path::new(path), sync).err().map(drop);
    assert_eq!(open("/dev/null", false), None);
    assert_eq!(open("/dev/null", true), Some(()));
}

/// The request ids of every file of `path`, oldest first.
fn of_all_files(path: &Path) -> Vec<Vec<String>> {
    let numbered =
        (1..=9).rev().map(|number| PathBuf::from(format!("{}.{number}", path.display())));
    numbered
        .filter(|path| path.exists())
        .chain([path.to_owned()])
        .map(|path| request_ids(&path))
        .collect()
}

#[tokio::test]
async fn a_large_file_is_put_aside_between_two_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let rotation = Some(Rotation { bytes: 1, keep: 2 });
    let options = LinesOptions { rotation, ..LinesOptions::default() };
    let sink = JsonLinesSink::open_with(&path, options).unwrap();
    let mut expected =
        [["1"].as_slice(), &["1", "2"], &["1", "2", "3"], &["2", "3", "4"]].into_iter();
    for id in ["1", "2", "3", "4"] {
        sink.submit(audit(id)).unwrap();
        sink.flush().await.unwrap();
        // One record in each file, and beyond those that are kept the oldest goes.
        assert_eq!(of_all_files(&path).concat(), expected.next().unwrap());
    }
    assert_eq!(of_all_files(&path).len(), 3);
}

#[tokio::test]
async fn a_gap_that_a_killed_process_left_is_filled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let file = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    // As after a rotation that moved 2 to 3 and got no further.
    for (number, text) in [(1, "one"), (3, "three")] {
        std::fs::write(file(number), text).unwrap();
    }
    std::fs::write(&path, "{}\n").unwrap();
    let options =
        LinesOptions { rotation: Some(Rotation { bytes: 1, keep: 3 }), ..LinesOptions::default() };
    let sink = JsonLinesSink::open_with(&path, options).unwrap();
    sink.submit(audit("new")).unwrap();
    sink.flush().await.unwrap();
    let texts = [1, 2, 3].map(|number| std::fs::read_to_string(file(number)).unwrap());
    assert_eq!(texts, ["{}\n", "one", "three"]);
    assert_eq!(request_ids(&path), ["new"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_put_aside_is_written_further() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    // No file can be renamed over a directory that holds something.
    std::fs::create_dir_all(directory.path().join("audit.jsonl.1/full")).unwrap();
    let options =
        LinesOptions { rotation: Some(Rotation { bytes: 1, keep: 1 }), ..LinesOptions::default() };
    let sink = JsonLinesSink::open_with(&path, options).unwrap();
    for id in ["1", "2", "3"] {
        sink.submit(audit(id)).unwrap();
        sink.flush().await.unwrap();
    }
    assert_eq!(request_ids(&path), ["1", "2", "3"]);
    assert!(sink.healthy());
}

#[test]
fn a_file_has_one_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let sink = JsonLinesSink::open(&path, false).unwrap();
    let second = JsonLinesSink::open(&path, false).err().unwrap();
    assert!(
        matches!(&second, AuditOpenError::Locked { path: named } if *named == path),
        "{second}"
    );
    sink.close().unwrap();
    // The writer has ended, and its lock with it.
    JsonLinesSink::open(&path, false).unwrap();
}

#[tokio::test]
async fn events_stand_among_the_records() {
    use convoke_model::{AuditEventKind, SpiffeId, UnixMillis};
    let (sink, _tell, file) = scripted(false, 10);
    let agent = SpiffeId::parse("spiffe://example.org/worker").unwrap();
    let kind = AuditEventKind::Shutdown { finished: 0, cut: 0, lost_tasks: 0 };
    sink.submit(audit("1")).unwrap();
    sink.note(AuditEvent { at: UnixMillis(0), agent, kind }).unwrap();
    sink.close().unwrap();
    let text = String::from_utf8(file.lock().unwrap().clone()).unwrap();
    let types: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event_type"].clone())
        .collect();
    assert_eq!(types, ["authorization", "shutdown"]);
}

/// Set for the process that is killed.
const VICTIM: &str = "CONVOKE_TEST_AUDIT_VICTIM";

/// Writes records from the number that it is told, until it is killed, and says how far it is.
fn write_until_killed(path: &Path, from: u64) -> ! {
    let rotation = Some(Rotation { bytes: 2000, keep: 1000 });
    let options = LinesOptions { rotation, ..LinesOptions::default() };
    let sink = JsonLinesSink::open_with(path, options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in from.. {
        sink.submit(audit(&number.to_string())).unwrap();
        if number % 3 == 0 {
            runtime.block_on(sink.flush()).unwrap();
            println!("written {number}");
        }
    }
    unreachable!("the numbers do not end")
}

#[test]
fn nothing_that_was_written_is_lost_by_a_kill_at_any_moment() {
    use std::io::BufRead;
    if let Ok(victim) = std::env::var(VICTIM) {
        let (from, path) = victim.split_once(' ').unwrap();
        write_until_killed(Path::new(path), from.parse().unwrap());
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let mut next = 0;
    for round in 1..=5 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "json_lines::tests::nothing_that_was_written_is_lost_by_a_kill_at_any_moment",
            ])
            .arg("--nocapture")
            .env(VICTIM, format!("{next} {}", path.display()))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let said = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let said = said.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("written ").and_then(|number| number.parse::<u64>().ok())
        });
        // A file is put aside every few records, so a kill hits all parts of that in time.
        let last = said.take(20 * round).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let mut files: Vec<_> = (0..1000)
            .map(|number| PathBuf::from(format!("{}.{number}", path.display())))
            .filter(|file| file.exists())
            .collect();
        files.reverse();
        files.push(path.clone());
        let mut found = Vec::new();
        for file in files.iter().filter(|file| file.exists()) {
            let text = std::fs::read_to_string(file).unwrap();
            // Only the very last line can be torn, and the next writer ends it.
            let read = |line| serde_json::from_str::<serde_json::Value>(line).ok();
            found.extend(
                text.lines()
                    .filter_map(read)
                    .map(|record| record["request_id"].as_str().unwrap().parse::<u64>().unwrap()),
            );
        }
        assert!(files.len() > 3, "the file was put aside");
        let expected: Vec<u64> = (0..=*found.last().unwrap()).collect();
        assert_eq!(found, expected, "each record once, in order");
        assert!(found.len() as u64 > last, "{last} was said to be written");
        next = found.len() as u64;
    }
}
