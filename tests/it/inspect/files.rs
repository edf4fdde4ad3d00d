//! Opening external data: a regular file inside the bundle, and nothing else, both ways.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use moed::engine::inspect::external::{open, open_in_steps};
use moed::engine::inspect::{FileFault, InspectError};
use moed::engine::limits::Limits;
use rustix::fs::{CWD, FileType, Mode, mknodat};

type Open = fn(&Path, &str, &Limits) -> Result<File, InspectError>;
const WAYS: [(&str, Open); 2] = [("at once", open), ("in steps", open_in_steps)];

/// A bundle with every kind of file, and a directory outside it.
fn bundle() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("tempdir");
    let at = |path: &str| root.path().join(path);
    fs::create_dir_all(at("bundle/deep/er")).expect("directories");
    fs::create_dir(at("outside")).expect("directory");
    for path in ["bundle/w.bin", "bundle/deep/er/w.bin", "bundle/twice.bin", "outside/secret"] {
        fs::write(at(path), path).expect("write");
    }
    fs::hard_link(at("bundle/twice.bin"), at("bundle/again.bin")).expect("hard link");
    fs::hard_link(at("outside/secret"), at("bundle/hard.bin")).expect("hard link");
    symlink("w.bin", at("bundle/link.bin")).expect("link");
    symlink(at("outside/secret"), at("bundle/out.bin")).expect("link");
    symlink("../outside", at("bundle/out")).expect("link");
    symlink("deep", at("bundle/in")).expect("link");
    symlink("loop.bin", at("bundle/loop.bin")).expect("link");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, at("bundle/pipe.bin"), FileType::Fifo, mode, 0).expect("pipe");
    drop(UnixListener::bind(at("bundle/socket.bin")).expect("socket"));
    root
}

#[test]
fn opens_a_regular_file_inside_the_bundle() {
    let root = bundle();
    for (way, open) in WAYS {
        for location in ["w.bin", "deep/er/w.bin"] {
            let file = open(&root.path().join("bundle"), location, &Limits::default());
            let mut text = String::new();
            file.expect(way).read_to_string(&mut text).expect("read");
            assert_eq!(text, format!("bundle/{location}"), "{way}");
        }
    }
}

#[test]
fn opens_nothing_else() {
    let root = bundle();
    let (link, irregular) = (FileFault::Link, FileFault::NotRegular);
    let part = FileFault::Location { cause: "a part that is empty, `.` or `..`" };
    for (way, open) in WAYS {
        for (location, expect) in [
            ("link.bin", &link),
            ("out.bin", &link),
            ("out/secret", &link),
            ("in/er/w.bin", &link),
            ("loop.bin", &link),
            ("w.bin/w.bin", &link),
            ("deep", &irregular),
            ("deep/er", &irregular),
            ("pipe.bin", &irregular),
            ("socket.bin", &irregular),
            ("twice.bin", &FileFault::HardLinks { links: 2 }),
            ("hard.bin", &FileFault::HardLinks { links: 2 }),
            ("..", &part),
            ("../outside/secret", &part),
            ("deep/../w.bin", &part),
            ("deep//w.bin", &part),
            ("/etc/passwd", &FileFault::Location { cause: "an absolute path" }),
            ("", &FileFault::Location { cause: "empty" }),
            ("w.bin\0", &FileFault::Location { cause: "a control character" }),
            ("none.bin", &FileFault::Io { cause: "entity not found".into() }),
            ("none/w.bin", &FileFault::Io { cause: "entity not found".into() }),
        ] {
            match open(&root.path().join("bundle"), location, &Limits::default()) {
                Err(InspectError::File { fault }) => assert_eq!(&fault, expect, "{way} {location}"),
                other => panic!("{way} {location}: {other:?}"),
            }
        }
    }
}

#[test]
fn opens_no_file_over_the_limit() {
    let root = bundle();
    let dir = root.path().join("bundle");
    let bytes = "bundle/w.bin".len() as u64;
    for (way, open) in WAYS {
        let limits = |external_bytes_max| Limits { external_bytes_max, ..Limits::default() };
        assert!(open(&dir, "w.bin", &limits(bytes)).is_ok(), "{way}");
        let fault = FileFault::Size { bytes, limit: bytes - 1 };
        let refused = open(&dir, "w.bin", &limits(bytes - 1)).err();
        assert_eq!(refused, Some(InspectError::File { fault }), "{way}");
    }
}

#[test]
fn says_nothing_of_the_path() {
    let root = bundle();
    for (_, open) in WAYS {
        let error = open(&root.path().join("none"), "w.bin", &Limits::default()).expect_err("none");
        let text = "external data: file: entity not found; check that it is there and can be read";
        assert_eq!(error.to_string(), text);
    }
}
