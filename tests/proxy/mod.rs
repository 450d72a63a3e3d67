//! A TCP proxy that passes everything on until it is told to do worse: to cut, refuse, freeze, delay, or to lose commits.
#![allow(dead_code, reason = "each of the test programs uses its part")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// What a client says to commit.
const COMMIT: &[u8] = b"COMMIT";
/// What PostgreSQL answers to it, either of them.
const ENDED: [&[u8]; 2] = [b"COMMIT\0", b"ROLLBACK\0"];

/// What becomes of a commit that is lost. The client cannot tell these from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LostCommit {
    /// The connection is cut before the server hears of it.
    BeforeTheServer,
    /// The server carries it out and answers; then the connection is cut, and the answer with it.
    AfterTheServer,
    /// The server carries it out and answers; the answer never comes, and the connection stays.
    InSilence,
}

/// What holds for all connections now.
#[derive(Clone, Debug, Default)]
struct Rules {
    /// Connections that were made before the latest cut are over.
    cuts: u64,
    refusing: bool,
    frozen: bool,
    delay: Duration,
}

struct Shared {
    target: SocketAddr,
    rules: watch::Sender<Rules>,
    /// Commits still to be lost, and how.
    to_lose: Mutex<Vec<LostCommit>>,
    lost: AtomicU64,
    open: AtomicU64,
}

/// A proxy on a port of its own. Dropping it ends its connections.
pub(crate) struct Proxy {
    runtime: Option<Runtime>,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) fn start(target: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            rules: watch::Sender::new(Rules::default()),
            to_lose: Mutex::default(),
            lost: AtomicU64::new(0),
            open: AtomicU64::new(0),
        });
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self { runtime: Some(runtime), address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections that there are.
    pub(crate) fn cut(&self) {
        self.shared.rules.send_modify(|rules| rules.cuts += 1);
    }

    /// Whether new connections are closed at once.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.shared.rules.send_modify(|rules| rules.refusing = refusing);
    }

    /// Whether nothing passes, in either direction, and nobody is told.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.shared.rules.send_modify(|rules| rules.frozen = frozen);
    }

    /// How long bytes are on their way, in either direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.rules.send_modify(|rules| rules.delay = delay);
    }

    /// Loses the next `times` commits of whoever commits next.
    pub(crate) fn lose_commits(&self, how: LostCommit, times: usize) {
        self.shared.to_lose.lock().unwrap().extend(std::iter::repeat_n(how, times));
    }

    /// Loses no more commits.
    pub(crate) fn keep_commits(&self) {
        self.shared.to_lose.lock().unwrap().clear();
    }

    /// How many commits were lost until now.
    pub(crate) fn commits_lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // Out of file descriptors, or a client that has left already: the next one may do better.
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if !shared.rules.borrow().refusing {
            tokio::spawn(serve(client, Arc::clone(&shared)));
        }
    }
}

/// One connection, until either side or the rules end it.
async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let mut rules = shared.rules.subscribe();
    let cuts = rules.borrow_and_update().cuts;
    let Ok(server) = TcpStream::connect(shared.target).await else { return };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    shared.open.fetch_add(1, Ordering::Relaxed);
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let muted = Muted::default();
    tokio::select! {
        () = ask(client_reads, server_writes, &shared, &muted) => {}
        () = answer(server_reads, client_writes, &shared, &muted) => {}
        _ = rules.wait_for(|rules| rules.cuts > cuts) => {}
    }
    shared.open.fetch_sub(1, Ordering::Relaxed);
}

/// Whether the server's answers are thrown away.
#[derive(Default)]
struct Muted {
    /// For good.
    silent: AtomicBool,
    /// Until the transaction has ended; then the connection ends too.
    last: AtomicBool,
}

async fn ask(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, shared: &Shared, muted: &Muted) {
    let mut seen = Seen::default();
    let mut buffer = vec![0; 1 << 16];
    while let Some(bytes) = next(&mut client, &mut buffer, shared).await {
        if seen.in_passing(bytes, &[COMMIT])
            && let Some(how) = shared.to_lose.lock().unwrap().pop()
        {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            match how {
                LostCommit::BeforeTheServer => return,
                LostCommit::AfterTheServer => muted.last.store(true, Ordering::Relaxed),
                LostCommit::InSilence => muted.silent.store(true, Ordering::Relaxed),
            }
        }
        if server.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn answer(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, shared: &Shared, muted: &Muted) {
    let mut seen = Seen::default();
    let mut buffer = vec![0; 1 << 16];
    while let Some(bytes) = next(&mut server, &mut buffer, shared).await {
        if muted.silent.load(Ordering::Relaxed) {
            continue;
        }
        if muted.last.load(Ordering::Relaxed) {
            if seen.in_passing(bytes, &ENDED) {
                return;
            }
            continue;
        }
        if client.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// The next bytes, once they may pass; `None` at the end.
async fn next<'b>(from: &mut OwnedReadHalf, buffer: &'b mut [u8], shared: &Shared) -> Option<&'b [u8]> {
    let count = from.read(buffer).await.ok().filter(|count| *count > 0)?;
    let mut rules = shared.rules.subscribe();
    let delay = rules.wait_for(|rules| !rules.frozen).await.ok()?.delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    Some(&buffer[..count])
}

/// Finds words in a stream, also where two reads share one.
#[derive(Default)]
struct Seen {
    tail: Vec<u8>,
}

impl Seen {
    fn in_passing(&mut self, bytes: &[u8], words: &[&[u8]]) -> bool {
        let longest = words.iter().map(|word| word.len()).max().unwrap_or(0);
        self.tail.extend_from_slice(bytes);
        let found = words.iter().any(|word| self.tail.windows(word.len()).any(|window| window == *word));
        let keep = if found { 0 } else { longest.saturating_sub(1).min(self.tail.len()) };
        self.tail.drain(..self.tail.len() - keep);
        found
    }
}
