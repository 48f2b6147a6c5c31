//! Artifacts as files. What they are called, and how many they are, is the agent's word, so names
//! are made harmless and everything has a bound.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use convoke_model::{Artifact, ArtifactId, Content, Part, Task};

use crate::args::Saving;
use crate::exit::{Code, Failure};
use crate::paint::{plain, say};

/// Most files of one task: each stays open while the task is followed.
const FILES_MAX: usize = 256;

/// Most bytes of all files of one task.
const BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Longest name of a file without its extension, in bytes; the file systems in use allow 255 in all.
const NAME_BYTES_MAX: usize = 100;

/// Base64 as ProtoJSON allows it: padded or not. Its other alphabet is turned into this one before.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Saves the artifacts of one task in a directory.
pub(super) struct Saver {
    dir: PathBuf,
    force: bool,
    files: Vec<Saved>,
    names: HashSet<String>,
    bytes: u64,
    /// Parts that are elsewhere, and are not fetched.
    elsewhere: usize,
}

/// A file that belongs to an artifact.
struct Saved {
    artifact: ArtifactId,
    kind: Kind,
    /// The name that the part has of its own; parts of one artifact with different ones are
    /// different files.
    filename: Option<String>,
    path: PathBuf,
    file: File,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Raw,
    Data,
}

impl Saver {
    /// A saver as the command line asks for one. The directory is made if there is none.
    pub(super) fn of(saving: &Saving) -> Result<Option<Self>, Failure> {
        let Some(dir) = saving.out.clone() else { return Ok(None) };
        fs::create_dir_all(&dir)
            .map_err(|error| Failure::of_file(Code::Failure, dir.display(), &error))?;
        Ok(Some(Self {
            dir,
            force: saving.force,
            files: Vec::new(),
            names: HashSet::new(),
            bytes: 0,
            elsewhere: 0,
        }))
    }

    /// Saves all artifacts of the task as it stands, instead of what was saved of it before.
    pub(super) fn whole(&mut self, task: &Task) -> Result<(), Failure> {
        self.elsewhere = 0;
        for artifact in &task.artifacts {
            self.piece(artifact, false)?;
        }
        Ok(())
    }

    /// Saves a piece of an artifact, behind what there is of it or instead of that.
    pub(super) fn piece(&mut self, artifact: &Artifact, append: bool) -> Result<(), Failure> {
        if !append {
            for saved in self.files.iter_mut().filter(|it| it.artifact == artifact.artifact_id) {
                let emptied =
                    saved.file.set_len(0).and_then(|()| saved.file.seek(SeekFrom::Start(0)));
                emptied.map_err(|error| failed(&saved.path, &error))?;
                self.bytes -= saved.bytes;
                saved.bytes = 0;
            }
        }
        for part in &artifact.parts {
            self.part(artifact, part)?;
        }
        Ok(())
    }

    /// Says what was saved.
    pub(super) fn report(&self) {
        for saved in &self.files {
            say(format!("saved {} ({} bytes)", saved.path.display(), saved.bytes));
        }
        if self.elsewhere > 0 {
            say(format!("{} parts are at addresses, and were not fetched", self.elsewhere));
        }
    }

    fn part(&mut self, artifact: &Artifact, part: &Part) -> Result<(), Failure> {
        let decoded;
        let (kind, bytes) = match &part.content {
            Content::Text(text) => (Kind::Text, text.as_bytes()),
            Content::Data(data) => (Kind::Data, data.get().as_bytes()),
            Content::Raw(base64) => {
                let text = base64.replace('-', "+").replace('_', "/");
                decoded = BASE64.decode(text).map_err(|error| {
                    let name = plain(artifact.artifact_id.as_str());
                    let text = format_args!("artifact {name} is not base64: {error}");
                    Failure::new(Code::AgentFailed, text)
                })?;
                (Kind::Raw, decoded.as_slice())
            }
            Content::Url(_) => {
                self.elsewhere += 1;
                return Ok(());
            }
        };
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > BYTES_MAX {
            let text = format_args!(
                "the artifacts are more than {BYTES_MAX} bytes, the most that is saved"
            );
            return Err(Failure::new(Code::AgentFailed, text));
        }
        let index = match self.files.iter().position(|saved| saved.holds(artifact, part, kind)) {
            Some(index) => index,
            None => self.begin(artifact, part, kind)?,
        };
        let saved = &mut self.files[index];
        // Values one below the other are still readable, one behind the other they are not.
        let between: &[u8] = if kind == Kind::Data && saved.bytes > 0 { b"\n" } else { b"" };
        let written = saved.file.write_all(between).and_then(|()| saved.file.write_all(bytes));
        written.map_err(|error| failed(&saved.path, &error))?;
        saved.bytes += (between.len() + bytes.len()) as u64;
        self.bytes += between.len() as u64;
        Ok(())
    }

    fn begin(&mut self, artifact: &Artifact, part: &Part, kind: Kind) -> Result<usize, Failure> {
        if self.files.len() == FILES_MAX {
            let text = format_args!(
                "the artifacts are more than {FILES_MAX} files, the most that are saved"
            );
            return Err(Failure::new(Code::AgentFailed, text));
        }
        let given = part.filename.as_deref().or(artifact.name.as_deref());
        let (stem, extension) = harmless(
            given.unwrap_or(artifact.artifact_id.as_str()),
            extension_of(part.media_type.as_deref(), kind),
        );
        let mut name = format!("{stem}.{extension}");
        let mut number = 2;
        // File systems may take names for the same that differ in case.
        while !self.names.insert(name.to_lowercase()) {
            name = format!("{stem}-{number}.{extension}");
            number += 1;
        }
        let path = self.dir.join(name);
        if self.force {
            // Removed and made anew, so that a link leads nowhere.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed(&path, &error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let file = File::create_new(&path).map_err(|error| {
            let failure = failed(&path, &error);
            if error.kind() == ErrorKind::AlreadyExists {
                return failure.hint("name another directory with --out, or add --force");
            }
            failure
        })?;
        let (artifact, filename) = (artifact.artifact_id.clone(), part.filename.clone());
        self.files.push(Saved { artifact, kind, filename, path, file, bytes: 0 });
        Ok(self.files.len() - 1)
    }
}

impl Saved {
    fn holds(&self, artifact: &Artifact, part: &Part, kind: Kind) -> bool {
        self.kind == kind && self.artifact == artifact.artifact_id && self.filename == part.filename
    }
}

fn failed(path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::of_file(Code::Failure, path.display(), error)
}

/// A name that is one within the directory and no option of anybody's: stem and extension. The
/// extension is the name's own if it has one.
fn harmless(given: &str, extension: &str) -> (String, String) {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last
        .chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' })
        .collect();
    let kept = kept.trim_matches(['.', '-', '_']);
    let (stem, own) = match kept.rsplit_once('.') {
        Some((stem, own))
            if !stem.is_empty()
                && (1..=8).contains(&own.len())
                && own.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
        {
            (stem, own)
        }
        _ => (kept, extension),
    };
    let end = stem.floor_char_boundary(NAME_BYTES_MAX);
    let stem = if stem.is_empty() { "artifact" } else { &stem[..end] };
    (stem.to_owned(), own.to_owned())
}

/// The usual extension of a media type, or that of what the part holds.
fn extension_of(media_type: Option<&str>, kind: Kind) -> &'static str {
    const USUAL: [(&str, &str); 19] = [
        ("text/plain", "txt"),
        ("text/markdown", "md"),
        ("text/html", "html"),
        ("text/csv", "csv"),
        ("text/css", "css"),
        ("text/xml", "xml"),
        ("application/xml", "xml"),
        ("application/json", "json"),
        ("application/yaml", "yaml"),
        ("application/pdf", "pdf"),
        ("application/zip", "zip"),
        ("application/gzip", "gz"),
        ("image/png", "png"),
        ("image/jpeg", "jpg"),
        ("image/gif", "gif"),
        ("image/webp", "webp"),
        ("image/svg+xml", "svg"),
        ("audio/mpeg", "mp3"),
        ("video/mp4", "mp4"),
    ];
    // Data is written as JSON, whatever it is said to be.
    if kind == Kind::Data {
        return "json";
    }
    let media = media_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    let found = USUAL.iter().find(|(known, _)| media.eq_ignore_ascii_case(known));
    found.map_or(if kind == Kind::Text { "txt" } else { "bin" }, |(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use convoke::Json;
    use tempfile::TempDir;

    use super::*;

    fn saver(dir: &TempDir, force: bool) -> Saver {
        let saving = Saving { out: Some(dir.path().join("out")), force };
        Saver::of(&saving).unwrap().unwrap()
    }

    fn artifact(id: &str, name: Option<&str>, contents: Vec<Content>) -> Artifact {
        Artifact {
            artifact_id: ArtifactId::parse(id).unwrap(),
            name: name.map(str::to_owned),
            description: None,
            parts: contents.into_iter().map(Part::new).collect(),
            metadata: None,
            extensions: Vec::new(),
            unknown: Vec::new(),
        }
    }

    fn text(text: &str) -> Content {
        Content::Text(text.into())
    }

    /// The files of the directory with what they hold.
    fn files(dir: &TempDir) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(dir.path().join("out"))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn check(dir: &TempDir, expected: &[(&str, &str)]) {
        let found = files(dir);
        let found: Vec<_> =
            found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_artifact_is_a_file_that_grows() {
        let dir = TempDir::new().unwrap();
        let mut saver = saver(&dir, false);
        let data = |text: &str| Content::Data(Json::parse(text).unwrap());
        saver.piece(&artifact("a1", Some("story"), vec![text("once ")]), false).unwrap();
        saver.piece(&artifact("a2", None, vec![data(r#"{"n":42.0}"#)]), false).unwrap();
        saver.piece(&artifact("a1", Some("story"), vec![text("upon"), text(" a")]), true).unwrap();
        saver.piece(&artifact("a3", None, vec![Content::Raw("aGk".into())]), false).unwrap();
        saver.piece(&artifact("a3", None, vec![Content::Raw("!".into())]), true).unwrap_err();
        saver.piece(&artifact("a4", None, vec![Content::Url("u".into())]), false).unwrap();
        saver.piece(&artifact("a2", None, vec![data("2")]), true).unwrap();
        check(
            &dir,
            &[("a2.json", "{\"n\":42.0}\n2"), ("a3.bin", "hi"), ("story.txt", "once upon a")],
        );
        assert_eq!(saver.elsewhere, 1);
        // The whole of it again, as after events that were lost.
        saver.piece(&artifact("a1", Some("story"), vec![text("new")]), false).unwrap();
        assert_eq!(files(&dir)[2].1, "new");
    }

    #[test]
    fn nothing_is_written_over_unless_asked_for() {
        let dir = TempDir::new().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        let piece = artifact("a", None, vec![text("new")]);
        let mut careful = saver(&dir, false);
        symlink(&elsewhere, dir.path().join("out/a.txt")).unwrap();
        let failure = careful.piece(&piece, false).unwrap_err();
        assert!(failure.hint.unwrap().contains("--force"));
        saver(&dir, true).piece(&piece, false).unwrap();
        check(&dir, &[("a.txt", "new")]);
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        // Two artifacts of one name are two files.
        let mut both = saver(&dir, true);
        both.piece(&artifact("1", Some("x"), vec![text("1")]), false).unwrap();
        both.piece(&artifact("2", Some("X"), vec![text("2")]), false).unwrap();
        assert_eq!(files(&dir).len(), 3);
    }

    #[test]
    fn names_stay_within_the_directory() {
        let check = |given: &str, expected: &str| {
            let (stem, extension) = harmless(given, "txt");
            assert_eq!(format!("{stem}.{extension}"), expected, "{given:?}");
        };
        check("report", "report.txt");
        check("report.pdf", "report.pdf");
        check("../../etc/passwd", "passwd.txt");
        check("..\\..\\a.exe", "a.exe");
        check("..", "artifact.txt");
        check("", "artifact.txt");
        check("/", "artifact.txt");
        check(".bashrc", "bashrc.txt");
        check("-rf", "rf.txt");
        check("a b\n\u{1b}[2J\0c", "a_b___2J_c.txt");
        check("v1.2 final", "v1.2_final.txt");
        check("übung.md", "übung.md");
        check(&"x".repeat(500), &format!("{}.txt", "x".repeat(NAME_BYTES_MAX)));
        check(&"é".repeat(500), &format!("{}.txt", "é".repeat(NAME_BYTES_MAX / 2)));
    }

    #[test]
    fn media_types_have_their_usual_extension() {
        let check = |media: Option<&str>, kind, expected| {
            assert_eq!(extension_of(media, kind), expected);
        };
        check(None, Kind::Text, "txt");
        check(None, Kind::Raw, "bin");
        check(Some("text/plain"), Kind::Data, "json");
        check(Some("Text/Markdown; charset=utf-8"), Kind::Text, "md");
        check(Some("image/png"), Kind::Raw, "png");
        check(Some("x/y"), Kind::Raw, "bin");
    }
}
