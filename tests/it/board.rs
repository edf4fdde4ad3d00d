//! What a board says of itself, from files as the kernel writes them.

use std::fs;

use moed::daemon::board::Board;

/// A board with these files.
fn board(files: &[(&str, &str)]) -> (tempfile::TempDir, Board) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let board = Board::new(root.path());
    (root, board)
}

#[test]
fn says_nothing_of_what_it_cannot_measure() {
    let (_root, board) = board(&[("sys/class/thermal/cooling_device0/temp", "50000\n")]);
    assert_eq!((board.temperature_celsius(), board.watts(), board.load()), (None, None, None));
}

#[test]
fn the_hottest_plausible_zone_counts() {
    let (_root, board) = board(&[
        ("sys/class/thermal/thermal_zone0/temp", "51540\n"),
        ("sys/class/thermal/thermal_zone1/temp", "62250\n"),
        ("sys/class/thermal/thermal_zone2/temp", "-274000\n"),
        ("sys/class/thermal/thermal_zone3/temp", "2147483647\n"),
        ("sys/class/thermal/thermal_zone4/temp", "nothing\n"),
        ("proc/loadavg", "0.42 0.36 0.30 1/123 4567\n"),
    ]);
    assert_eq!(board.temperature_celsius(), Some(62.25));
    assert_eq!(board.load(), Some(0.42));
}

#[test]
fn the_largest_power_sensor_counts() {
    let power = ("sys/class/hwmon/hwmon1/power1_input", "3250000\n");
    let ina3221 = [
        ("sys/class/hwmon/hwmon0/name", "ina3221\n"),
        ("sys/class/hwmon/hwmon0/in1_input", "5000\n"),
        ("sys/class/hwmon/hwmon0/curr1_input", "904\n"),
        ("sys/class/hwmon/hwmon0/in2_input", "5000\n"),
        ("sys/class/hwmon/hwmon0/curr2_input", "200\n"),
    ];
    let other = [
        ("sys/class/hwmon/hwmon2/name", "rpi_volt\n"),
        ("sys/class/hwmon/hwmon2/in1_input", "50000\n"),
        ("sys/class/hwmon/hwmon2/curr1_input", "50000\n"),
    ];
    let watts = |files: &[(&str, &str)]| {
        let (_root, board) = board(files);
        board.watts()
    };
    assert_eq!(watts(&[power]), Some(3.25));
    assert_eq!(watts(&ina3221), Some(4.52));
    assert_eq!(watts(&other), None);
    assert_eq!(watts(&[&ina3221[..], &other, &[power]].concat()), Some(4.52));
}
