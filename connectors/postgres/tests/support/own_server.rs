//! A PostgreSQL of a test's own, for what cannot be tried on a shared one: TLS, standbys.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Stopped and deleted at the end of the test.
pub(crate) struct OwnServer {
    folder: TempDir,
    pub(crate) port: u16,
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.control(&["stop", "--mode=immediate"]);
    }
}

impl OwnServer {
    /// A server with the superuser `postgres`, whose password is `secret`.
    pub(crate) fn start(settings: &str, access: &str) -> Self {
        let server = Self::in_new_folder();
        let password = server.path("password");
        fs::write(&password, "secret").unwrap();
        hand_over(&password);
        let data = server.data();
        let arguments =
            ["--username=postgres", "--auth=scram-sha-256", "--locale=C", "--encoding=UTF8", "--no-sync"];
        let mut initdb = as_postgres("initdb");
        initdb.arg("-D").arg(&data).arg("--pwfile").arg(&password).args(arguments);
        execute(&mut initdb);
        server.configure(settings, access);
        server.restart();
        server
    }

    /// A standby of this server, which has to let `postgres` replicate.
    pub(crate) fn standby(&self) -> Self {
        let standby = Self::in_new_folder();
        let mut copy = as_postgres("pg_basebackup");
        copy.arg("-D")
            .arg(standby.data())
            .arg("--write-recovery-conf")
            .arg("--checkpoint=fast")
            .arg("--no-sync");
        copy.arg("-d").arg(format!("postgresql://postgres:secret@127.0.0.1:{}/", self.port));
        execute(&mut copy);
        let own = format!("{}\nport = {}\n", read(&standby.data().join("postgresql.conf")), standby.port);
        fs::write(standby.data().join("postgresql.conf"), own).unwrap();
        standby.restart();
        standby
    }

    fn in_new_folder() -> Self {
        let folder = tempfile::Builder::new().prefix("txconnect-postgres-").tempdir().unwrap();
        hand_over(folder.path());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { folder, port }
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A file beside the data.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that the server may read and others may not.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        hand_over(&path);
        path
    }

    pub(crate) fn configure(&self, settings: &str, access: &str) {
        let usual = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\n",
            self.port,
            self.folder.path().display()
        );
        fs::write(self.data().join("postgresql.conf"), usual + settings).unwrap();
        fs::write(self.data().join("pg_hba.conf"), access).unwrap();
    }

    /// Starts it where it does not run.
    pub(crate) fn restart(&self) {
        let log = self.path("log");
        let log = log.to_str().unwrap();
        let verb = if self.data().join("postmaster.pid").exists() { "restart" } else { "start" };
        assert!(
            self.control(&[verb, "--wait", "--timeout=60", "--log", log]),
            "PostgreSQL did not start: {}",
            fs::read_to_string(log).unwrap_or_default()
        );
    }

    fn control(&self, arguments: &[&str]) -> bool {
        let mut control = as_postgres("pg_ctl");
        control.arg("-D").arg(self.data()).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        control.status().unwrap().success()
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn execute(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program of the newest PostgreSQL, run by the user `postgres` where we are root: it refuses root.
fn as_postgres(program: &str) -> Command {
    let mut newest: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL's programs below /usr/lib/postgresql: run ./dev setup")
        .map(|entry| entry.unwrap().path().join("bin").join(program))
        .filter(|path| path.exists())
        .collect();
    newest.sort();
    let mut command = Command::new(newest.last().expect("PostgreSQL's server: run ./dev setup"));
    command.current_dir("/").stdin(Stdio::null());
    if let Some((user, group)) = postgres_user() {
        command.uid(user).gid(group);
    }
    command
}

/// The user and group `postgres`, where we are root.
fn postgres_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
}

fn hand_over(path: &Path) {
    if let Some((user, group)) = postgres_user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}
