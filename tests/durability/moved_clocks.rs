//! The clocks of a machine that is suspended, boots, and has its wall clock set: a preloaded library moves them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Both clocks, by the seconds that they are ahead.
pub struct MovedClocks {
    folder: tempfile::TempDir,
    boot: AtomicI64,
    wall: AtomicI64,
}

impl MovedClocks {
    /// The machine's clocks, for now. Compiles the library: the relay needs a C compiler, too.
    pub fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().expect("a place");
        let (boot, wall) = (AtomicI64::new(0), AtomicI64::new(0));
        let clocks = Self { folder, boot, wall };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/durability/moved_clocks.c");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let mut compile = Command::new(compiler);
        compile.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]);
        let status = compile.arg(clocks.path("library.so")).arg(source).status();
        assert!(status.expect("a C compiler").success());
        fs::write(clocks.path("offsets"), [0; 16]).expect("room");
        clocks.boot_again(0);
        clocks.boot.store(0, Ordering::Relaxed);
        clocks.write();
        Arc::new(clocks)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// For a process that has these clocks.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", self.path("library.so")),
            ("MOVED_CLOCKS", self.path("offsets")),
            ("MOVED_BOOT_ID", self.path("boot_id")),
        ]
    }

    fn write(&self) {
        let offsets = [&self.boot, &self.wall].map(|it| it.load(Ordering::Relaxed).to_ne_bytes());
        let file = OpenOptions::new().write(true).open(self.path("offsets")).expect("it is there");
        file.write_all_at(&offsets.concat(), 0).expect("room");
    }

    /// The machine is suspended for some seconds, or runs.
    pub fn pass(&self, seconds: i64) {
        self.boot.fetch_add(seconds, Ordering::Relaxed);
        self.wall.fetch_add(seconds, Ordering::Relaxed);
        self.write();
    }

    /// Somebody sets the wall clock to a Unix time.
    pub fn set_wall_clock(&self, unix: i64) {
        self.wall.store(unix - machine_unix(), Ordering::Relaxed);
        self.write();
    }

    /// The wall clock, as a Unix time.
    pub fn wall_clock(&self) -> i64 {
        machine_unix() + self.wall.load(Ordering::Relaxed)
    }

    /// The machine boots, and was off for some seconds. Only the battery keeps the wall clock.
    pub fn boot_again(&self, seconds: i64) {
        let uptime = fs::read_to_string("/proc/uptime").expect("Linux");
        let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse::<i64>().ok());
        // A few seconds after the boot.
        self.boot.store(5 - uptime.expect("a number"), Ordering::Relaxed);
        self.wall.fetch_add(seconds, Ordering::Relaxed);
        fs::write(self.path("boot_id"), format!("{}\n", uuid::Uuid::new_v4())).expect("room");
        self.write();
    }
}

fn machine_unix() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("not that late")
}
