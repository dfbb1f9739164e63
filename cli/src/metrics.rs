//! Metrics of a running process: a file that is replaced every few seconds, and a port that answers
//! one path.

use crate::output;
use anyhow::Context;
use pith_report::{Header, Metrics};
use pith_runtime::TokenCost;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Interval between writes of the file.
const PERIOD: Duration = Duration::from_secs(5);
/// Longest request in bytes, and longest time for one client.
const MAX_REQUEST_BYTES: usize = 8192;
const MAX_REQUEST_TIME: Duration = Duration::from_secs(2);

type Shared = Arc<Mutex<Metrics>>;

/// Publishes metrics until it is finished or dropped. The model never waits for it: a separate
/// thread writes, and locks the sums only to copy them.
#[derive(Default)]
pub struct Publisher {
    file: Option<FileWriter>,
}

struct FileWriter {
    path: PathBuf,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Publisher {
    /// Starts publishing. Returns the receiver of every cost.
    pub fn begin(
        file: Option<&Path>,
        address: Option<SocketAddr>,
        header: &Header,
    ) -> anyhow::Result<(Self, impl FnMut(&TokenCost) + Send + use<>)> {
        let is_wanted = file.is_some() || address.is_some();
        let metrics = is_wanted.then(|| Arc::new(Mutex::new(Metrics::new(header))));
        let mut publisher = Self::default();
        if let Some(metrics) = &metrics {
            publisher.file = file.map(|path| FileWriter::begin(path, Arc::clone(metrics))).transpose()?;
            if let Some(address) = address {
                let bound = listen(address, Arc::clone(metrics))?;
                eprintln!("metrics at http://{bound}/metrics");
                if !bound.ip().is_loopback() {
                    eprintln!(
                        "note: {bound} can be reached from other machines, and asks nobody who they are"
                    );
                }
            }
        }
        let count = move |cost: &TokenCost| {
            if let Some(metrics) = &metrics {
                metrics.lock().unwrap_or_else(PoisonError::into_inner).add(cost);
            }
        };
        Ok((publisher, count))
    }

    /// Writes the file for the last time.
    pub fn finish(mut self) -> anyhow::Result<()> {
        match &mut self.file {
            Some(file) => file.finish().with_context(|| file.path.display().to_string()),
            None => Ok(()),
        }
    }
}

impl FileWriter {
    fn begin(path: &Path, metrics: Shared) -> anyhow::Result<Self> {
        write(path, &metrics).with_context(|| path.display().to_string())?;
        let (stop, stopped) = mpsc::channel();
        let own = path.to_path_buf();
        let work = move || loop {
            match stopped.recv_timeout(PERIOD) {
                // Errors here are ignored: the next write replaces the file, and the last one
                // reports its error.
                Err(RecvTimeoutError::Timeout) => drop(write(&own, &metrics)),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return write(&own, &metrics),
            }
        };
        let thread = thread::Builder::new().name("metrics-file".into()).spawn(work)?;
        Ok(Self { path: path.into(), stop: Some(stop), thread: Some(thread) })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the thread that writes metrics ended early")),
            None => Ok(()),
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // A failed run reports its own error.
        let _ = self.finish();
    }
}

fn write(path: &Path, metrics: &Shared) -> io::Result<()> {
    output::replace(path, rendered(metrics).as_bytes())
}

fn rendered(metrics: &Shared) -> String {
    let copy = metrics.lock().unwrap_or_else(PoisonError::into_inner).clone();
    copy.render()
}

/// Parses an address to listen at: `9464`, `localhost:9464`, `127.0.0.1:9464`, `[::1]:9464`.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let local = |port: &str| port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let port = text.strip_prefix("localhost:").or(text.strip_prefix(':')).unwrap_or(text);
    text.parse()
        .ok()
        .or_else(|| local(port))
        .ok_or_else(|| format!("\"{text}\" is not an address such as 9464, 127.0.0.1:9464 or [::1]:9464"))
}

/// Answers one client at a time, on a thread that ends with the process.
fn listen(address: SocketAddr, metrics: Shared) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
    let bound = listener.local_addr()?;
    thread::Builder::new().name("metrics-port".into()).spawn(move || {
        loop {
            match listener.accept() {
                // A client that disconnects affects no other.
                Ok((mut client, _)) => drop(answer(&mut client, &metrics)),
                // A temporary error, such as too many open files.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    })?;
    Ok(bound)
}

fn answer(client: &mut TcpStream, metrics: &Shared) -> io::Result<()> {
    client.set_write_timeout(Some(MAX_REQUEST_TIME))?;
    let mut is_head = false;
    let (status, body) = match read_request(client)? {
        Request::TooLong => ("431 Request Header Fields Too Large", String::new()),
        Request::TooSlow => ("408 Request Timeout", String::new()),
        Request::Whole(head) => {
            let mut words = head.split_ascii_whitespace();
            let (method, target) = (words.next(), words.next().map(path_of));
            let found = match (method, target, words.next()) {
                (Some("GET" | "HEAD"), Some("/metrics"), Some(version)) if version.starts_with("HTTP/1.") => {
                    ("200 OK", rendered(metrics))
                }
                (Some("GET" | "HEAD"), Some(_), Some(_)) => ("404 Not Found", "see /metrics\n".into()),
                (Some(_), Some(_), Some(_)) => ("405 Method Not Allowed", String::new()),
                _ => ("400 Bad Request", String::new()),
            };
            is_head = method == Some("HEAD");
            found
        }
    };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         {allow}Connection: close\r\n\r\n{}",
        body.len(),
        if is_head { "" } else { &body },
    );
    client.write_all(text.as_bytes())?;
    client.shutdown(Shutdown::Write)
}

/// The path of a request target, without its query.
fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

enum Request {
    Whole(String),
    TooLong,
    TooSlow,
}

/// Reads up to the first empty line; does not read a body.
fn read_request(client: &mut TcpStream) -> io::Result<Request> {
    let deadline = Instant::now() + MAX_REQUEST_TIME;
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Request::TooSlow);
        }
        client.set_read_timeout(Some(left))?;
        match client.read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
            return Ok(Request::Whole(String::from_utf8_lossy(line).into_owned()));
        }
        if bytes.len() > MAX_REQUEST_BYTES {
            return Ok(Request::TooLong);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_report::{MachineRecord, ModelRecord, RunRecord, SCHEMA};
    use pith_runtime::{Conditions, Phase, Traffic};

    fn header() -> Header {
        Header {
            pith_ledger: SCHEMA,
            pith: "1.2.3".into(),
            started: None,
            model: ModelRecord {
                name: "a \"model\"".into(),
                file: "a.pith".into(),
                file_bytes: 1,
                file_checksum: "0".into(),
                source_checksum: String::new(),
                recipe: "q4".into(),
                decode_weight_bytes: 1,
                by_role: Vec::new(),
                by_layer: Vec::new(),
            },
            run: RunRecord { kernels: "avx2".into(), threads: 2, kv: "f16".into(), context_len: 8, batch: 8 },
            machine: MachineRecord::default(),
            bandwidth: None,
            meters: Vec::new(),
        }
    }

    fn cost() -> TokenCost {
        TokenCost {
            phase: Phase::Decode,
            tokens: 3,
            drafted: 4,
            start: Duration::ZERO,
            elapsed: Duration::from_millis(250),
            traffic: Traffic { weight_bytes: 1000, ..Traffic::default() },
            energy: Vec::new(),
            conditions: Conditions { temperature_celsius: Some(51.5), ..Conditions::default() },
        }
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(request).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn a_port_answers_with_the_sums_and_survives_bad_requests() {
        let metrics = Arc::new(Mutex::new(Metrics::new(&header())));
        let address = listen(parse_address("0").unwrap(), Arc::clone(&metrics)).unwrap();
        assert!(address.ip().is_loopback());
        metrics.lock().unwrap().add(&cost());
        let get = b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let text = ask(address, get);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("\npith_tokens_total{phase=\"decode\"} 3\n"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        // A silent client times out, and the next is served.
        let silent = TcpStream::connect(address).unwrap();
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"\x00\xff\r\n\r\n", "400"),
        ] {
            let text = ask(address, request);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        }
        drop(silent);
        let head = ask(address, b"HEAD /metrics HTTP/1.0\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        let mut long = TcpStream::connect(address).unwrap();
        // The server may close the connection before all of it is sent.
        let _ = long.write_all(&[b'a'; 20_000]);
        drop(long);
        assert!(ask(address, get).contains("pith_weight_bytes_total{phase=\"decode\"} 1000\n"));
    }

    #[test]
    fn a_file_is_replaced_whole_and_ends_with_the_last_sums() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pith.prom");
        let (publisher, mut count) = Publisher::begin(Some(&path), None, &header()).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("pith_tokens_total{phase=\"decode\"} 0\n"));
        count(&cost());
        publisher.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("pith_tokens_total{phase=\"decode\"} 3\n"), "{text}");
        assert!(text.contains("model=\"a \\\"model\\\"\""), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let nowhere = folder.path().join("none/pith.prom");
        let error = Publisher::begin(Some(&nowhere), None, &header()).err().unwrap();
        assert!(format!("{error:#}").contains("none/pith.prom"), "{error:#}");
    }

    #[test]
    fn a_port_alone_is_of_the_loopback() {
        for text in ["9464", ":9464", "localhost:9464", "127.0.0.1:9464"] {
            assert_eq!(parse_address(text).unwrap().to_string(), "127.0.0.1:9464");
        }
        assert_eq!(parse_address("0.0.0.0:1").unwrap().to_string(), "0.0.0.0:1");
        for text in ["", "x", "70000", "1.2.3.4", "example.org:80"] {
            assert!(parse_address(text).unwrap_err().contains(text));
        }
    }
}
