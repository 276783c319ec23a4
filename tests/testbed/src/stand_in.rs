//! Servers in this process, for what no real hub does.
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// Serves every connection on a thread of its own, until this process ends, whatever `serve` returns. Returns where.
pub fn listen<T>(serve: impl Fn(TcpStream) -> T + Send + Sync + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || {
                let _ = serve(stream);
            });
        }
    });
    Ok(address)
}
