//! What changes the machine: kernel settings, and the script for a network card's queues, on folders that stand for a machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fanfare::config::Config;
use fanfare::doctor::{Level, Machine, examine};
use fanfare_testing::front::{deploy_folder, deployed};
use fanfare_testing::temporary_path;

use crate::run;

/// Files that stand for those of a machine, removed with the test.
struct Root(PathBuf);

impl Root {
    fn make() -> Root {
        let root = Root(temporary_path("root"));
        fs::create_dir(&root.0).expect("a folder of our own");
        root
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().expect("it is in a folder")).expect("a folder of our own");
        fs::write(file, text).expect("a file of our own");
    }

    #[track_caller]
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}")).trim_end().to_owned()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The settings of `sysctl.d`, by their keys. Each stands once, below a comment or below another one.
fn sysctls() -> BTreeMap<String, String> {
    let text = deployed("sysctl.d/90-fanfare.conf");
    let mut found = BTreeMap::new();
    let mut above = "";
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            assert!(above.starts_with('#') || above.contains(" = "), "{key} has its reason above it");
            assert!(found.insert(key.to_owned(), value.to_owned()).is_none(), "{key} stands once");
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "neither comment nor setting: {line}");
        }
        above = line;
    }
    found
}

#[test]
fn the_kernel_has_every_setting() {
    let settings = sysctls();
    assert!(settings.len() > 10);
    for key in settings.keys() {
        let file = Path::new("/proc/sys").join(key.replace('.', "/"));
        assert!(file.is_file(), "{key}: this kernel has no {}", file.display());
    }
}

/// Those that a network namespace has of its own are written to one that ends with the test.
#[test]
fn the_kernel_takes_the_values() {
    let own: Vec<String> = sysctls()
        .iter()
        .filter(|(key, _)| key.starts_with("net.ipv4.") || *key == "net.core.somaxconn")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert!(own.len() > 5);
    let apply = |settings: &[String]| {
        let namespace: &[&str] = if rustix::process::geteuid().is_root() { &["--net"] } else { &["--net", "-r"] };
        run(Command::new("unshare").args(namespace).args(["sysctl", "-w"]).args(settings))
    };
    let (is_taken, said) = apply(&own);
    assert!(is_taken, "{said}");
    assert!(!apply(&["net.ipv4.tcp_rmem=nonsense".to_owned()]).0, "what is wrong is told");
}

/// On a distribution's machine the doctor tells of settings that bite; with the file none of its settings does any more.
#[test]
fn the_doctor_is_content_with_the_values() {
    let settings = sysctls();
    let told = |root: &Root| -> Vec<String> {
        let mut config = Config::default();
        config.limits.connections_max = 200_000;
        let findings = examine(&Machine::read(&root.0), &config).into_iter().filter(|it| it.level != Level::Good);
        let mends = findings.filter_map(|finding| finding.mend);
        let keys = mends.filter_map(|mend| Some(mend.split_once("sysctl -w ")?.1.split_once('=')?.0.to_owned()));
        keys.filter(|key| settings.contains_key(key)).collect()
    };
    let root = Root::make();
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines/distribution-defaults.txt");
    let recorded = fs::read_to_string(&recorded).expect("a machine that was recorded");
    for file in recorded.split("==> ").skip(1) {
        let (path, content) = file.split_once(" <==\n").expect("a path between arrows");
        root.write(path.trim_start_matches('/'), content.trim_end_matches("\n\n"));
    }
    assert!(told(&root).len() >= 3, "by default: {:?}", told(&root));
    for (key, value) in &settings {
        root.write(&format!("proc/sys/{}", key.replace('.', "/")), &format!("{value}\n"));
    }
    assert_eq!(told(&root), Vec::<String>::new());
}

fn script() -> PathBuf {
    deploy_folder().join("network-queues")
}

#[test]
fn shellcheck_finds_nothing() {
    let (is_good, said) = run(Command::new("shellcheck").arg(script()));
    assert!(is_good, "{said}");
}

/// A card with so many queues of each kind, and the interrupts of three of them, on a machine of so many cores.
fn card(queues: usize, cores: usize) -> Root {
    let root = Root::make();
    root.write("sys/devices/system/cpu/online", &format!("0-{}\n", cores - 1));
    let mut interrupts = String::from("            CPU0       CPU1\n");
    for (number, name) in [(40, "eth0-config"), (41, "eth0-TxRx-0"), (42, "eth0-TxRx-1"), (43, "mlx5_comp5@pci:0")] {
        root.write(&format!("sys/class/net/eth0/device/msi_irqs/{number}"), "msi\n");
        root.write(&format!("proc/irq/{number}/smp_affinity_list"), "0-3\n");
        interrupts.push_str(&format!("  {number}:   1   2   IR-PCI-MSI 1-edge   {name}\n"));
    }
    // Another device's.
    root.write("proc/irq/50/smp_affinity_list", "0-3\n");
    interrupts.push_str("  50:   1   2   IR-PCI-MSI 1-edge   nvme0q1\n");
    root.write("proc/interrupts", &interrupts);
    for queue in 0..queues {
        root.write(&format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus"), "00000000\n");
        root.write(&format!("sys/class/net/eth0/queues/tx-{queue}/xps_cpus"), "0f\n");
    }
    root
}

#[track_caller]
fn queues(root: &Root, flags: &[&str]) -> (bool, String) {
    run(Command::new(script()).arg("eth0").args(flags).arg("--root").arg(&root.0))
}

/// All that the script may write, with what stands there.
fn state(root: &Root) -> Vec<String> {
    let affinities = [40, 41, 42, 43, 50].map(|number| root.read(&format!("proc/irq/{number}/smp_affinity_list")));
    let masks = [0, 1].map(|queue| {
        let folder = format!("sys/class/net/eth0/queues/rx-{queue}/rps_cpus");
        format!("{} {}", root.read(&folder), root.read(&folder.replace("rx-", "tx-").replace("rps", "xps")))
    });
    affinities.into_iter().chain(masks).collect()
}

#[test]
fn the_cards_queues_are_spread_and_put_back() {
    let root = card(2, 4);
    let before = state(&root);
    let (is_good, said) = queues(&root, &[]);
    assert!(is_good && said.contains("nothing was written"), "{said}");
    assert_eq!(state(&root), before, "without --apply nothing is written");
    assert!(!queues(&root, &["--undo"]).0, "nothing to undo yet");

    // Queue 0 on core 0, 1 on 1, 5 on 1; the others' interrupts stay. Cores 0 and 2 for the first queue, 1 and 3 for the second.
    let spread = ["0-3", "0", "1", "1", "0-3", "5 5", "a a"];
    for _twice in 0..2 {
        let (is_good, said) = queues(&root, &["--apply"]);
        assert!(is_good, "{said}");
        assert_eq!(state(&root), spread, "{said}");
    }
    let (is_good, said) = queues(&root, &["--undo"]);
    assert!(is_good, "{said}");
    assert_eq!(state(&root), before, "as it was before the first --apply");
}

#[test]
fn rps_is_for_cards_with_few_queues() {
    let root = card(4, 4);
    assert!(queues(&root, &["--apply"]).0);
    assert_eq!(state(&root)[5..], ["00000000 1", "00000000 2"]);
    assert!(queues(&root, &["--apply", "--rps", "on"]).0);
    assert_eq!(state(&root)[5..], ["1 1", "2 2"]);
    // More cores than a group of the mask has bits.
    let root = card(2, 40);
    assert!(queues(&root, &["--apply", "--cpus", "0-1,32-35"]).0);
    assert_eq!(state(&root)[5..], ["5,00000001 5,00000001", "a,00000002 a,00000002"]);
}

#[test]
fn what_would_go_wrong_is_refused() {
    let root = card(2, 4);
    for (flags, word) in [
        (&["--cpus", "0-"][..], "no list of cores"),
        (&["--rps", "maybe"], "--rps takes"),
        (&["--aply"], "unknown"),
        (&["eth1"], "one device at a time"),
    ] {
        let (is_good, said) = queues(&root, flags);
        assert!(!is_good && said.contains(word), "{flags:?}: {said}");
    }
    let before = state(&root);
    root.write("proc/77/comm", "irqbalance\n");
    let (is_good, said) = queues(&root, &["--apply"]);
    assert!(!is_good && said.contains("irqbalance runs"), "{said}");
    assert_eq!(state(&root), before);
}
