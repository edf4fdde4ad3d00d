//! `.moed` files: packed and unpacked, and hostile ones refused.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use moed::bundle::{Bundle, BundleError, Limits, entries, pack, remove_leftovers, unpack};
use proptest::prelude::*;
use tar::{EntryType, Header};

use super::bundle;

/// An archive entry by hand: the `tar` crate refuses to write some of these names itself.
fn entry(name: &str, kind: EntryType, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn regular(name: &str) -> Vec<u8> {
    entry(name, EntryType::Regular, b"data")
}

fn read(archive: &[u8]) -> Result<Vec<String>, BundleError> {
    let mut names = Vec::new();
    entries(archive, &Limits::default(), |name, bytes, _| {
        names.push(format!("{name} {bytes}"));
        Ok(())
    })?;
    Ok(names)
}

fn packed() -> (tempfile::TempDir, PathBuf) {
    let (dir, path) = bundle();
    let archive = dir.path().join("two-layers.moed");
    let bundle = Bundle::open(&path, &Limits::default()).expect("it opens");
    pack(&bundle, &archive).expect("it is packed");
    (dir, archive)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_packed_bundle_is_unpacked_whole_and_again_gives_the_same_folder() {
    let (dir, archive) = packed();
    let into = dir.path().join("into");
    fs::create_dir(&into).expect("a folder");
    let bundle = unpack(&archive, &into, &Limits::default()).expect("it is unpacked");
    assert_eq!(bundle.manifest().name, "two-layers");
    assert_eq!(names(bundle.dir()), ["golden.json", "manifest.toml", "model.onnx"]);
    let again = unpack(&archive, &into, &Limits::default()).expect("it is there");
    assert_eq!(bundle.dir(), again.dir());
    assert_eq!(names(&into).len(), 1, "{:?}", names(&into));

    let second = dir.path().join("second.moed");
    pack(&bundle, &second).expect("it is packed");
    assert!(fs::read(&archive).expect("bytes") == fs::read(&second).expect("bytes"));
}

#[test]
fn what_tar_itself_packs_is_taken() {
    let (dir, path) = bundle();
    let archive = dir.path().join("by-tar.moed");
    let status = std::process::Command::new("tar")
        .args(["--format=ustar", "-C"])
        .arg(&path)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(status.expect("tar is there").success());
    unpack(&archive, dir.path(), &Limits::default()).expect("it is unpacked");
}

#[test]
fn hostile_and_foreign_archives_are_refused_in_words() {
    let long = entry("././@LongLink", EntryType::GNULongName, b"a long name\0");
    let pax = entry("./PaxHeaders/model.onnx", EntryType::XHeader, b"20 path=../model.oo\n");
    let mut huge = Header::new_ustar();
    huge.set_path("model.onnx").expect("a name");
    huge.set_size(1 << 50);
    huge.set_entry_type(EntryType::Regular);
    huge.set_cksum();
    let many: Vec<u8> = (0..200).flat_map(|i| regular(&format!("file{i}"))).collect();
    let cases: [(&str, Vec<u8>); 16] = [
        ("link", entry("model.onnx", EntryType::Link, b"")),
        ("symlink", entry("model.onnx", EntryType::Symlink, b"")),
        ("device", entry("model.onnx", EntryType::Char, b"")),
        ("pipe", entry("model.onnx", EntryType::Fifo, b"")),
        ("sparse", entry("model.onnx", EntryType::GNUSparse, b"")),
        ("long name", [long, regular("model.onnx")].concat()),
        ("pax", [pax, regular("model.onnx")].concat()),
        ("folder", entry("folder/", EntryType::Directory, b"")),
        ("absolute", regular("/etc/passwd")),
        ("upwards", regular("../model.onnx")),
        ("inside", regular("folder/model.onnx")),
        ("upwards below", regular("./../model.onnx")),
        ("hidden", regular(".bashrc")),
        ("twice", [regular("model.onnx"), regular("./model.onnx")].concat()),
        ("huge", huge.as_bytes().to_vec()),
        ("many", many),
    ];
    let mut texts = String::new();
    for (what, archive) in cases {
        let error = read(&archive).expect_err(what);
        texts += &format!("{what}\n    {error}\n");
    }
    let mut no_tar = vec![b'x'; 4096];
    texts += &format!("no tar\n    {}\n", read(&no_tar).expect_err("refused"));
    no_tar.truncate(100);
    texts += &format!("too short\n    {}\n", read(&no_tar).expect_err("refused"));
    insta::assert_snapshot!(texts);
}

#[test]
fn a_refused_archive_leaves_nothing_behind() {
    let (dir, archive) = packed();
    let whole = fs::read(&archive).expect("the archive");
    let into = dir.path().join("into");
    fs::create_dir(&into).expect("a folder");
    let mut changed = whole.clone();
    let at = changed.windows(3).rposition(|bytes| bytes == b"QMo").expect("the model");
    changed[at] ^= 1;
    let cut = &whole[..whole.len() / 2];
    let foreign = [entry("more.bin", EntryType::Regular, b"more"), whole.clone()].concat();
    for bytes in [&changed[..], cut, &foreign, b""] {
        let mut file = fs::File::create(&archive).expect("the archive");
        file.write_all(bytes).expect("written");
        unpack(&archive, &into, &Limits::default()).map(|_| ()).expect_err("refused");
        assert_eq!(names(&into), [""; 0]);
    }
    unpack(dir.path(), &into, &Limits::default()).map(|_| ()).expect_err("a folder is no archive");
}

#[test]
fn what_a_power_cut_leaves_is_removed_and_nothing_else() {
    let (dir, archive) = packed();
    let bundle = unpack(&archive, dir.path(), &Limits::default()).expect("it is unpacked");
    fs::create_dir(dir.path().join(".moed-unpacking-1-0")).expect("a folder");
    remove_leftovers(dir.path()).expect("removed");
    assert!(bundle.dir().exists());
    assert!(!names(dir.path()).iter().any(|name| name.starts_with(".moed")));
}

#[test]
fn a_file_over_what_is_left_of_the_limit_is_refused() {
    let archive = [regular("a"), regular("b")].concat();
    let read = |bundle_bytes_max| {
        let limits = Limits { bundle_bytes_max, ..Limits::default() };
        entries(archive.as_slice(), &limits, |_, _, _| Ok(()))
    };
    read(8).expect("at the limit it is read");
    let error = read(7).expect_err("refused");
    assert_eq!(error.to_string(), "archive: b: 4 bytes are over the limit of 3");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        drop(read(&bytes));
    }

    /// One changed byte, the header's sum made right again: nothing that is given out could leave
    /// its folder.
    #[test]
    fn whatever_a_header_holds_only_plain_names_come_out(
        changes in proptest::collection::vec((0usize..512, any::<u8>()), 1..6),
    ) {
        let mut archive = [regular("model.onnx"), regular("golden.json")].concat();
        for (at, byte) in changes {
            archive[at] = byte;
        }
        let mut header = Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&archive[..512]);
        header.set_cksum();
        archive[..512].copy_from_slice(header.as_bytes());
        if let Ok(names) = read(&archive) {
            for name in names {
                prop_assert!(!name.contains('/') && !name.starts_with('.'), "{}", name);
            }
        }
    }
}
