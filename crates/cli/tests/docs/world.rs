//! Where the commands of a page are run: a directory, terminals, ports and an issuer of its own.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::page::workspace;

/// How long a terminal may take until it is ready: it may have to build the page's project.
const READY_WITHIN: Duration = Duration::from_secs(600);

/// How long the programs of a terminal may take to end.
const GONE_WITHIN: Duration = Duration::from_secs(40);

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_convoke");

/// The ports that the pages name.
const PORTS: [&str; 5] = ["8443", "8444", "8445", "9090", "9091"];

/// A copy of what a reader has after a clone, in which commands do what they would do there.
///
/// Commands are run as they stand, but for what they would share with the rest of the machine: the
/// ports and the issuer's socket become others that are free, the path to the clone becomes the
/// workspace's, and `cargo run --release --` the binary under test.
pub(crate) struct World {
    dir: tempfile::TempDir,
    /// Where the reader's own terminal is.
    here: PathBuf,
    replaced: Vec<(String, String)>,
    terminals: Vec<Terminal>,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("convoke-docs-").tempdir().unwrap();
        let root = dir.path().to_owned();
        let socket = root.join("api.sock").display().to_string();
        let mut replaced = vec![
            ("cargo run --release --".to_owned(), "convoke".to_owned()),
            ("../convoke/".to_owned(), format!("{}/", workspace().display())),
            ("identity serve ".to_owned(), format!("identity serve --socket {socket} ")),
            ("/tmp/spire-agent/public/api.sock".to_owned(), socket),
        ];
        replaced.extend(PORTS.map(|port| (port.to_owned(), free_port().to_string())));
        // The reader's clone, as the page has it called.
        let root = root.join("convoke");
        fs::create_dir(&root).unwrap();
        let world = Self { here: root.clone(), dir, replaced, terminals: Vec::new() };
        for part in ["config", "policies"] {
            let part = format!("examples/document-pipeline/{part}");
            fs::create_dir_all(root.join(&part)).unwrap();
            for file in fs::read_dir(workspace().join(&part)).unwrap() {
                let file = file.unwrap();
                let text = fs::read_to_string(file.path()).unwrap();
                fs::write(root.join(&part).join(file.file_name()), world.adapt(&text)).unwrap();
            }
        }
        world.lend_the_build();
        world
    }

    /// Lets projects in this world use what the workspace has built: its target directory, and the
    /// settings by which cargo tells builds apart.
    fn lend_the_build(&self) {
        let config = fs::read_to_string(workspace().join(".cargo/config.toml")).unwrap();
        let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
        let at = manifest.find("[profile.dev]").expect("the workspace has a dev profile");
        let end = manifest.find("[profile.release]").expect("and a release profile after it");
        let target = Path::new(BINARY).ancestors().nth(2).unwrap();
        let lent = format!(
            "{config}\n{}\n[build]\ntarget-dir = \"{}\"\n[net]\noffline = true\n",
            &manifest[at..end],
            target.display()
        );
        fs::create_dir(self.dir.path().join(".cargo")).unwrap();
        fs::write(self.dir.path().join(".cargo/config.toml"), lent).unwrap();
    }

    /// `text` with the places of this world.
    pub(crate) fn adapt(&self, text: &str) -> String {
        replace_all(&self.replaced, text)
    }

    /// What the port that pages call `port` is in this world.
    pub(crate) fn port(&self, port: &str) -> u16 {
        self.adapt(port).parse().unwrap()
    }

    /// Where agents of this world keep what they write.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Writes a file where the reader's terminal is.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.here.join(path);
        assert!(path.starts_with(self.dir.path()), "{} is outside", path.display());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.adapt(text)).unwrap();
    }

    /// Runs `script` in the reader's terminal, which is afterwards where it has gone.
    pub(crate) fn run(&mut self, script: &str) -> Output {
        let went = self.dir.path().join("went");
        let script = format!("trap 'pwd >\"{}\"' EXIT\n{}", went.display(), self.adapt(script));
        let output = self.shell(&script).stdin(Stdio::null()).output().unwrap();
        self.here = fs::read_to_string(went).unwrap().trim_end().into();
        output
    }

    /// Runs `script` in a terminal of its own, from where the reader is, until it says `ready`.
    pub(crate) fn terminal(&mut self, script: &str, ready: &str) {
        let terminal = Terminal::open(self.shell(&in_a_group(&self.adapt(script))));
        self.terminals.push(terminal);
        let terminal = self.terminals.last().unwrap();
        let is_ready = terminal.wait(READY_WITHIN, |screen| screen.text.contains(ready));
        assert!(is_ready, "`{script}` never said `{ready}`:\n{}", terminal.text());
    }

    /// What all terminals have shown so far.
    pub(crate) fn screens(&self) -> String {
        self.terminals.iter().map(Terminal::text).collect()
    }

    /// Ends the terminals, the last first, and gives what they have shown.
    pub(crate) fn close(&mut self) -> String {
        let mut screens = String::new();
        while let Some(terminal) = self.terminals.pop() {
            screens.push_str(&terminal.end());
        }
        screens
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        let mut path = vec![Path::new(BINARY).parent().unwrap().to_owned()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        // The cargo that runs this test, for when no path leads to one.
        let cargo = std::env::var_os("CARGO").map(PathBuf::from);
        path.extend(cargo.and_then(|cargo| Some(cargo.parent()?.to_owned())));
        command
            .args(["-eu", "-c", script])
            .current_dir(&self.here)
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("TMPDIR", self.dir.path())
            .env("CONVOKE_DATA_DIR", self.state())
            .env("SPIFFE_ENDPOINT_SOCKET", self.dir.path().join("api.sock"))
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CONVOKE_LOG");
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.close();
    }
}

/// `script`, with everything that it starts, ends with standard input. So nothing outlives the
/// test, however that ends; the shell waits for what it has started, so that nothing is left over.
fn in_a_group(script: &str) -> String {
    format!(
        "exec 3<&0\n{{ cat <&3; kill -TERM 0; }} >/dev/null 2>&1 &\nexec 3<&- </dev/null\n\
         trap wait TERM\n{script}"
    )
}

/// Programs that run beside the reader's terminal.
struct Terminal {
    child: Child,
    screen: Arc<(Mutex<Screen>, Condvar)>,
}

/// What a terminal has shown.
#[derive(Default)]
struct Screen {
    text: String,
    /// Nobody is left who could show more.
    is_over: bool,
}

impl Terminal {
    fn open(mut command: Command) -> Self {
        // Both streams go to one pipe, as they do to one screen.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        // The command holds ends of the pipe, which would keep it open.
        drop(command);
        let screen = Arc::new((Mutex::new(Screen::default()), Condvar::new()));
        let shown = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            loop {
                let read = reader.read(&mut piece).unwrap();
                let mut screen = shown.0.lock().unwrap();
                screen.text.push_str(&String::from_utf8_lossy(&piece[..read]));
                screen.is_over = read == 0;
                shown.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        Self { child, screen }
    }

    fn text(&self) -> String {
        self.screen.0.lock().unwrap().text.clone()
    }

    /// Waits until `done`, and says whether that came.
    fn wait(&self, within: Duration, done: impl Fn(&Screen) -> bool) -> bool {
        let give_up = Instant::now() + within;
        let mut screen = self.screen.0.lock().unwrap();
        while !done(&screen) && !screen.is_over {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            screen = self.screen.1.wait_timeout(screen, left).unwrap().0;
        }
        done(&screen)
    }

    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let is_over = self.wait(GONE_WITHIN, |screen| screen.is_over);
        if !is_over {
            self.child.kill().unwrap();
        }
        self.child.wait().unwrap();
        let text = self.text();
        assert!(is_over || std::thread::panicking(), "a terminal does not end:\n{text}");
        text
    }
}

/// `text` with each first of a pair replaced by its second. What has been put in is not looked at
/// again, and a number is replaced as a whole or not at all.
fn replace_all(pairs: &[(String, String)], text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let found = pairs.iter().find(|(from, _)| {
            let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
            let is_number = from.bytes().all(|byte| byte.is_ascii_digit());
            rest.strip_prefix(from.as_str()).is_some_and(|after| {
                !is_number || !(is_digit(out.chars().next_back()) || is_digit(after.chars().next()))
            })
        });
        let taken = match found {
            Some((from, to)) => {
                out.push_str(to);
                from.len()
            }
            None => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

#[test]
fn replacements_are_made_once() {
    let pairs = [("8443", "19090"), ("9090", "18443"), ("a/b", "9090")];
    let pairs = pairs.map(|(from, to)| (from.to_owned(), to.to_owned()));
    for (text, expected) in [
        (":8443, :9090", ":19090, :18443"),
        ("84430 18443", "84430 18443"),
        ("a/b:8443/é", "9090:19090/é"),
    ] {
        assert_eq!(replace_all(&pairs, text), expected);
    }
}

/// A port that is free now, below those that the system gives to outgoing connections, so that no
/// other test takes it before it is used.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + u16::try_from(std::process::id() % 2000).unwrap() * 10;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        #[expect(clippy::disallowed_methods, reason = "it is closed again: the port is for others")]
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}
