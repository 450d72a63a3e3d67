//! A way to the server that can be cut at the worst moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a COMMIT on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Commits {
    /// They pass.
    Pass,
    /// The connection is cut instead of passing one on.
    AreLost,
    /// Answers are passed on only when one has been seen.
    AreAwaited,
    /// The server answers, and the connection is cut instead of passing the answer on.
    LoseTheirAnswer,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    commits: Arc<AtomicU8>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let commits = Arc::new(AtomicU8::new(Commits::Pass as u8));
        let switch = Arc::clone(&commits);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(forward(client, server, Arc::clone(&switch)));
            }
        });
        Self { address, commits }
    }

    pub(crate) fn set(&self, commits: Commits) {
        self.commits.store(commits as u8, Ordering::SeqCst);
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, commits: Arc<AtomicU8>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut seen = false;
    loop {
        let awaits = !seen && commits.load(Ordering::SeqCst) == Commits::AreAwaited as u8;
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                let commit = up[..count].windows(6).any(|window| window == b"COMMIT");
                seen |= commit;
                if commit && commits.load(Ordering::SeqCst) == Commits::AreLost as u8 {
                    return;
                }
                if server.write_all(&up[..count]).await.is_err() {
                    return;
                }
                if commit && commits.load(Ordering::SeqCst) == Commits::LoseTheirAnswer as u8 {
                    // Everything that the server says until it has nothing more to do goes nowhere.
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"COMMIT\0Z\0\0\0\x05I") {
                        let Ok(count @ 1..) = server.read(&mut down).await else { return };
                        answer.extend_from_slice(&down[..count]);
                    }
                    return;
                }
            }
            read = server.read(&mut down), if !awaits => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
