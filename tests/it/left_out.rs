//! What a plain `cargo test` does not run: it is named, so that a green run promises no more than
//! it has done.

use std::io::Write as _;
use std::path::Path;

use crate::mqtt::clients::clients;
use crate::support::mqtt::broker::mosquitto;

/// A check that is not run here, why, and what runs it.
struct LeftOut {
    script: &'static str,
    checks: &'static str,
    needs: &'static str,
    run_by: &'static str,
}

const LEFT_OUT: [LeftOut; 8] = [
    LeftOut {
        script: "tests/vectors/check_onnxruntime.py",
        checks: "the expected outputs of the operators, against onnxruntime itself",
        needs: "Python packages",
        run_by: "tests/run",
    },
    LeftOut {
        script: "models/recipe/tests.py",
        checks: "the recipe's parts, and models/intent in onnxruntime",
        needs: "Python packages",
        run_by: "tests/run",
    },
    LeftOut {
        script: "tests/clients/run_home_assistant.py",
        checks: "Home Assistant itself: it discovers moed, asks, and gets the answer",
        needs: "root, mosquitto and a Debian tree of its own",
        run_by: "tests/clients/home_assistant",
    },
    LeftOut {
        script: ".ci/arm",
        checks: "the kernels and operators of other CPUs than this one",
        needs: "root, a cross compiler and qemu",
        run_by: ".ci/run",
    },
    LeftOut {
        script: ".ci/arm-daemon",
        checks: "the packaged daemon itself, on emulated ARM CPUs",
        needs: "root, a cross compiler and qemu",
        run_by: ".ci/arm-daemon",
    },
    LeftOut {
        script: ".ci/arm-pages",
        checks: "the packages on a Linux with pages of 16 KiB, as a Raspberry Pi 5 has them",
        needs: "root, qemu-system-aarch64 and the packages of .ci/release",
        run_by: ".ci/arm-pages",
    },
    LeftOut {
        script: "tests/systemd/run",
        checks: "the packages, under a real systemd: sockets, watchdog, sandbox, upgrade, purge",
        needs: "root and systemd-nspawn",
        run_by: "tests/run",
    },
    LeftOut {
        script: "tests/fuzz/Cargo.toml",
        checks: "the fuzz targets, over their seeds",
        needs: "a C++ compiler",
        run_by: ".ci/run",
    },
];

#[test]
fn what_cargo_test_leaves_out_is_named() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::from("\n");
    for LeftOut { script, checks, needs, run_by } in LEFT_OUT {
        for path in [script, run_by] {
            assert!(project.join(path).exists(), "{path}: is gone: this list is out of date");
        }
        text += &format!("left out: {script}: {checks}: needs {needs}: run {run_by}\n");
    }
    if mosquitto().is_none() {
        text += "left out: tests/it/mqtt, tests/it/updates: what needs a broker: needs mosquitto: run \
                 tests/run\n";
    }
    if clients().is_none() {
        text += "left out: tests/clients: paho-mqtt, mqtt.js and Node-RED: needs them: run \
                 tests/run\n";
    }
    // Not `eprint!`: the test runner would keep it to itself.
    std::io::stderr().write_all(text.as_bytes()).expect("stderr can be written");
}
